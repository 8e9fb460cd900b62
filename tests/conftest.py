"""What several tests share: the golden vectors and a rendered tiny world."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from making import write_tracks
from rig import SHORT, Rig

from gazepose import startup
from gazepose.data.index import Index

# files that take longest come first, so that the processes of pytest end together; the browser comes before all, since
# it hung twice in a process that had run many other files
SLOW = ["test_watch_page", "test_resume", "test_parity", "test_cli", "test_heartbeat", "test_models",
        "test_published", "test_guide", "test_run_identity",
        "test_streaming", "test_features", "test_doctor", "test_world", "test_media",
        "test_export", "test_elsewhere", "test_watch_dataset", "test_watch_command", "test_signals", "test_sweep",
        "test_bad_values"]
MEMORY = Path("/dev/shm")
ENOUGH = 6 << 30                             # bytes: the suite holds up to 1 GB at a time
PARITY = Path(__file__).resolve().parents[2] / "shared" / "parity"

settings.register_profile("gazepose", deadline=None)     # how long an example takes says nothing on a shared machine
settings.load_profile("gazepose")


def pytest_configure(config: pytest.Config) -> None:
    """Tests are about the CPU, also where there are GPUs; those marked gpu are run by themselves."""
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ENOUGH:
        os.environ["TMPDIR"] = str(MEMORY)                   # on a disk, a third of the time is waiting for it
        tempfile.tempdir = None
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)          # each of a hundred processes would compile every module
    sys.dont_write_bytecode = False
    for number in (signal.SIGINT, signal.SIGHUP):            # of a background job, or nohup
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: place.get(item.path.stem, len(SLOW)))


def pytest_collection_finish() -> None:
    """The garbage collector leaves modules and collected tests alone; looking through them takes it a tenth second."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()                            # or libraries report what they hold at the end of Python as leaks
    startup._preempted = False               # by a test that caught the exception


@pytest.fixture(scope="module")
def one_thread():
    """Small models are too small to share out; threads that wait for each other are slow on a busy machine."""
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def published_files_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of torch.save are read in this process: a child takes seconds. test_untrusted_runs.py starts children."""
    from gazepose import tensor_files
    monkeypatch.setattr(tensor_files, "in_child", tensor_files.convert)


@pytest.fixture(autouse=True)
def no_shipped_start(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Trainings in this process do not start from the package's weights; test_shipped_start.py makes weights."""
    from gazepose.training import shipped_start
    monkeypatch.setattr(shipped_start, "FOLDER", tmp_path_factory.getbasetemp() / "no-weights")


@pytest.fixture(autouse=True)
def precision_stays_in_a_test() -> Iterator[None]:
    """Accelerate keeps the precision of a process's first Accelerator: that of one test is not the next one's."""
    yield
    state = sys.modules.get("accelerate.state")
    if state and state.AcceleratorState._shared_state.get("_mixed_precision", "no") != "no":
        state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of golden vectors recorded from the published code; skips where it is absent."""
    if not PARITY.is_dir():
        pytest.skip(f"golden vectors absent: {PARITY} is not a folder")
    return PARITY


@pytest.fixture(scope="session")
def index_of(tmp_path_factory):
    """Makes an index of tracks given by their frame numbers; crop n is solid grey of level n modulo 256, or noise."""
    indices = {}

    def make(tracks: Sequence[Sequence[int]], noise: bool = False, **columns: Sequence[float]) -> Index:
        key = repr(([list(track) for track in tracks], noise, columns))
        if key not in indices:
            count = sum(map(len, tracks))
            crops = (np.random.default_rng(row).integers(0, 256, (16, 16, 3), np.uint8) if noise else
                     np.full((16, 16, 3), row % 256, np.uint8) for row in range(count))
            indices[key] = write_tracks(
                tmp_path_factory.mktemp("index") / "made",
                [("clip", f"track{number}", track) for number, track in enumerate(tracks)], crops,
                {"policy": "clean", "crop_size": 16}, **{"box": np.float32([[0, 0, 9, 9]] * count), **columns})
        return indices[key]

    return make


@pytest.fixture(scope="session")
def small_index(index_of) -> Index:
    """36 rows of noise in three tracks, the second half of each looking: what the small trainings learn from."""
    return index_of([range(12)] * 3, noise=True, label=[*[0] * 6, *[1] * 6] * 3)


@pytest.fixture(scope="module")
def rig(small_index, tmp_path_factory, request) -> Iterator[Rig]:
    """Small trainings; narrow ones in a module with `NARROW`. Their checkpoints go with the module's last test."""
    rig = Rig(small_index.folder, tmp_path_factory.mktemp("runs"), getattr(request.module, "NARROW", False))
    yield rig
    if not request.session.testsfailed:
        shutil.rmtree(rig.folder)


@pytest.fixture(scope="module")
def run(small_index, tmp_path_factory) -> Path:
    """A finished run whose flags are not the defaults."""
    return Rig(small_index.folder, tmp_path_factory.mktemp("run")).run("first", *SHORT, "--clip", "0.5").folder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory) -> Path:
    """The folder of a rendered world of preset tiny, seed 0; rendered once for all workers, to be read only."""
    from gazepose.synthetic.world import render_world
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return render_world(base / "tiny_world" / "data", "tiny", 0, jobs=1, notify=lambda line: None)
