"""With --quiet a command prints its warnings, its errors and its result; in a terminal, one bar and whole lines."""

import fcntl
import os
import pty
import struct
import termios
import threading

import pyte
import pytest
from making import data_set
from rig import SHORT, Rig
from warm import ran

from gazepose import deploy, verbs
from gazepose.output import QUIET, inform, take_quiet
from gazepose.progress import Progress

NARROW = True
ROWS, COLUMNS = 40, 120


@pytest.fixture
def silent(monkeypatch):
    monkeypatch.setenv(QUIET, "1")


def test_a_quiet_command_drops_information_but_no_warning(silent, capsys):
    for line in ("data: 9 faces", "warning: a clip is short", "f.json: changed -> prepare again",
                 "data: left out: 2 clips", "box cut: 2; person left out: camera wearer: 2", "skipped 1 of 2 steps"):
        inform(line)
    assert capsys.readouterr().out.splitlines() == [
        "warning: a clip is short", "f.json: changed -> prepare again", "data: left out: 2 clips",
        "skipped 1 of 2 steps"]


def test_a_quiet_command_shows_no_progress(silent):
    lines: list[str] = []
    with Progress("cutting", 10, "crops", lines.append, seconds=0) as progress:
        progress.add(5)
    assert not lines and progress.bar.disable


def test_the_flag_is_taken_out_and_holds_for_child_processes(monkeypatch):
    monkeypatch.setenv(QUIET, "0")
    assert take_quiet(["--data", "w"]) == ["--data", "w"] and os.environ[QUIET] == "0"
    assert take_quiet(["--data", "w", "--quiet"]) == ["--data", "w"] and os.environ[QUIET] == "1"


def test_a_quiet_preparation_prints_its_rows_and_what_it_left_out(tmp_path):
    root = data_set(tmp_path, {uid: [("track", list(range(5)))] for uid in ("c0", "c1")})
    prepare = ("-m", "gazepose", "prepare", "--data", str(root), "--split", "train", "--quiet", "--crop_size")
    line, = ran(*prepare, "16", cwd=tmp_path, world=2).splitlines()
    assert line.startswith("10 rows -> ")
    (root / "videos" / "c1.mp4").unlink()
    warning, line = ran(*prepare, "32", "--max_bad_fraction", "0.5", cwd=tmp_path).splitlines()
    assert "left out: 1 clip," in warning and line.startswith("5 rows -> ")


def test_a_quiet_export_prints_its_result_alone(silent, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(deploy, "export", lambda run, to, out: deploy.Exported(out, 0.0))
    verbs.export(tmp_path)
    assert capsys.readouterr().out.startswith("largest difference from the package: 0")


def test_a_quiet_training_prints_its_result_alone(rig: Rig):
    *warnings, line = rig.run("quiet", *SHORT, "--quiet").log().splitlines()
    assert line.startswith("best val_mAP=")
    assert all("(collapsed: " in words for words in warnings), warnings        # after two steps scores may be equal


def test_a_terminal_shows_one_bar_and_whole_lines_while_a_training_runs(rig: Rig):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    screen, bars = pyte.Screen(COLUMNS, ROWS), []
    stream = pyte.ByteStream(screen)

    def watch() -> None:
        while True:
            try:
                stream.feed(os.read(master, 4096))
            except OSError:                              # all have closed it
                return
            bars.append([line for line in screen.display if "%|" in line])

    watching = threading.Thread(target=watch)
    watching.start()
    (rig.folder / "terminal.0.log").symlink_to(os.ttyname(slave))
    try:
        codes = rig.start("terminal", *SHORT).wait()
    finally:
        os.close(slave)
        watching.join()
        os.close(master)
    lines = [line.rstrip() for line in screen.display if line.strip()]
    assert codes == [0], lines
    assert max(map(len, bars)) == 1 and any(line.startswith("scoring:") for shown in bars for line in shown)
    assert [line.split("%|")[0] for line in lines if "%|" in line] == ["training: 100"]
    assert lines[-2].startswith("training: 100%|") and lines[-1].startswith("best val_mAP=")
    assert sum(line.startswith("epoch 1  val mAP") for line in lines) == 1
