"""Windows and macOS, as far as they can be seen from here: no module and no command needs what they lack."""

import os
from pathlib import Path

import pytest
import warm
from test_cli import SMALL
from test_layers import modules

PACKAGE = [f"gazepose.{name}" for name in modules() if name != "__main__"]
START = """
import importlib, sys
import torch._dynamo, elsewhere
for name in [name for name in sys.modules if name.split(".")[0] == "gazepose"]:
    del sys.modules[name]
elsewhere.pretend({platform!r})
"""


def on(platform: str, code: str, cwd: Path) -> str:
    status, output = warm.python("-c", START.format(platform=platform) + code, cwd=cwd)
    assert status == 0, output
    return output


def verb(*words: str) -> str:
    return f"""
sys.argv = {["gazepose", *words]}
from gazepose.__main__ import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
"""


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_every_module_can_be_imported(platform, tmp_path):
    output = on(platform, f"""
for name in {PACKAGE}:
    importlib.import_module(name)
from gazepose import machine, processes
print(processes.START, machine.cores(), sys.modules["gazepose.machine"].os.__class__.__name__)
""", tmp_path)
    assert output.split() == ["spawn" if platform == "win32" else "forkserver", str(os.cpu_count()), "Seen"]


@pytest.mark.drill
def test_a_world_is_rendered_trained_on_scored_and_examined_on_windows(tmp_path):
    """It lacks all that macOS lacks, beside forked workers."""
    platform = "win32"
    small = [*SMALL, "--backbone", "test_resnet"]
    said = on(platform, verb("--help") + verb("synthetic", "--out", "world", "--preset", "tiny", "--jobs", "1")
              + verb("doctor", "world"), tmp_path)
    assert "usage: gazepose VERB" in said and "world -> world" in said
    said = on(platform, verb("train", "--data", "world", "--epochs", "1", "--batch_size", "8", "--limit", "16",
                             "--num_workers", "1", "--exp_path", "run", *small), tmp_path)
    assert "read by pyav, because decord cannot be loaded" in said and "best val_mAP=" in said
    said = on(platform, verb("infer", "--checkpoint", "run", "--limit", "8", "--num_workers", "0"), tmp_path)
    assert (tmp_path / "run" / "pred" / "val" / "pred.partial.csv").is_file(), said
    assert not [path for path in tmp_path.rglob("*") if set(path.name) & set('<>:"|?*\\')], "no names for Windows"
