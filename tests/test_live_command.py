"""gazepose live: a file at its own pace, an HTTP stream that goes away, dropped pictures, Ctrl-C, JSON lines."""

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import pytest
import warm
from squares import Reader, Squares, film, moving, still

from gazepose import api
from gazepose import live as live_module
from gazepose.live import live
from gazepose.output import QUIET
from gazepose.watch import live_source
from gazepose.watch.config import LiveConfig
from gazepose.watch.live_source import LiveSource

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "load_networks", lambda size=None: (Squares(), Reader()))
    monkeypatch.setattr(live_source, "PAUSES", (0.05, 0.1))


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return film(tmp_path_factory.mktemp("live") / "a.mp4", moving(12, still(20, 60), still(200, 90, 30)))


@contextmanager
def served(pictures: int, connections: int) -> Iterator[str]:
    """An HTTP camera that gives so many pictures, so many times; later it answers 404. Yields its address."""
    jpeg = cv2.imencode(".jpg", moving(1, still(20, 60))[0])[1].tobytes()
    asked: list[str] = []

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if len(asked) > connections:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for _ in range(pictures):
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                                 + jpeg + b"\r\n")
                time.sleep(0.02)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_port}/camera"
    finally:
        server.shutdown()
        server.server_close()


def test_a_file_is_played_at_its_own_pace_and_each_picture_is_a_line(video, capsys):
    began = time.monotonic()
    live(str(video), LiveConfig())
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert time.monotonic() - began > 11 / 30 and [set(line) for line in lines] == [
        {"time", "frame", "people", "events", "dropped", "delay"}] * len(lines)
    assert len(lines) + lines[-1]["dropped"] - len([line for line in lines if not line["people"]]) == 12
    one, other = lines[0]["people"]
    assert one["codable"] and one["person"] == "P1" and 0 <= one["probability"] <= 1 and not one["looking"]
    assert other == {"person": "P2", "box": [200, 90, 30, 30], "probability": None, "looking": False, "since": 0.0,
                     "codable": False, "reason": "too small"}
    events = [event["event"] for line in lines for event in line["events"]]
    assert events == ["starts looking", "people looking", "stops looking", "people looking"]
    assert f"live: {len({line['frame'] for line in lines})} pictures in 0.4 s" in err


def test_a_quiet_command_prints_its_lines_of_json_alone(video, capsys, monkeypatch):
    monkeypatch.setenv(QUIET, "1")
    live(str(video), LiveConfig(every=0.2))
    out, err = capsys.readouterr()
    assert not err and all(json.loads(line) for line in out.splitlines()) and out


def test_a_slow_reader_gets_the_newest_picture_and_the_others_are_counted(video):
    with LiveSource(str(video)) as source:
        numbers = [shown.number for shown in source if not time.sleep(0.1)]
    assert 2 <= len(numbers) < 8 and numbers[-1] == 11 and len(numbers) + source.dropped == 12


def test_pictures_between_are_left_out_if_asked(video, capsys):
    live(str(video), LiveConfig(every=0.15))
    frames = [line["frame"] for line in map(json.loads, capsys.readouterr().out.splitlines()) if line["people"]]
    assert 2 <= len(frames) <= 3


@pytest.mark.parametrize(("least", "times"), [(10, 1), (4, 0)])
def test_too_few_pictures_to_follow_people_are_said_once(video, capsys, monkeypatch, least, times):
    monkeypatch.setattr(live_module, "SETTLED", 0.2)
    monkeypatch.setattr(live_module, "LEAST_RATE", least)
    live(str(video), LiveConfig(every=0.3))
    said = capsys.readouterr().err
    assert said.count(f"below {least}, people get new names") == said.count(f"-> give --every {1 / least:g}") == times
    live(str(video), LiveConfig(every=1 / least))
    assert "people get new names" not in capsys.readouterr().err


def test_people_keep_their_names_with_the_scorer_that_a_message_advises(tmp_path, capsys, monkeypatch):
    video = film(tmp_path / "a.mp4", moving(45, still(20, 60)))

    class Slow(Squares):
        def find(self, shown):
            time.sleep(0.25)
            return super().find(shown)

    def load(scorer: str) -> api.Scorer:
        monkeypatch.setattr(api, "load_networks", lambda size=None: (Squares() if scorer == "landmarks" else Slow(),
                                                                     Reader()))
        return api.load("landmarks")
    monkeypatch.setattr(live_module, "load", load)
    monkeypatch.setattr(live_module, "SETTLED", 1.0)
    monkeypatch.setattr(live_module, "LEAST_RATE", 8)
    live(str(video), LiveConfig(scorer="a run"))
    assert "-> use a faster machine, fewer other programs, or --scorer landmarks" in capsys.readouterr().err
    live(str(video), LiveConfig(scorer="landmarks"))
    assert "people get new names" not in capsys.readouterr().err
    monkeypatch.setattr(live_module, "LEAST_RATE", 1000)
    live(str(video), LiveConfig(scorer="landmarks"))
    assert capsys.readouterr().err.splitlines()[0].endswith("-> use a faster machine, or fewer other programs")


def test_a_stream_that_goes_away_is_opened_again_and_in_the_end_given_up():
    said: list[str] = []
    with served(pictures=4, connections=2) as address, LiveSource(address, 0.6, said.append) as source:
        numbers = []
        with pytest.raises(OSError, match="127.0.0.1:.*: gave no picture for 0.6 s -> look at the camera"):
            numbers += (shown and shown.number for shown in source)
    assert numbers.count(None) == 2 and numbers[-1] is None                    # it went away twice
    assert 2 <= len(said) <= 9 and all("gives no picture any more; opening it again in 0.05 s" in line
                                       for line in said[:2])
    assert not any("secret" in line for line in said)


def test_a_camera_that_is_not_there_is_an_error_with_its_name(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/"
    for source, error, message in ((address, OSError, f"{address}: gives no picture -> look whether the camera is on"),
                                   (str(tmp_path / "a.mp4"), FileNotFoundError, "no such video"),
                                   ("ftp://there/a", ValueError, "cannot be read -> give rtsp, rtsps, http, https")):
        with pytest.raises(error, match=message):
            live(source, LiveConfig())


def test_what_the_messages_about_a_camera_advise_helps(tmp_path, video):
    with pytest.raises(FileNotFoundError, match="-> give a file"):
        LiveSource(str(tmp_path / "a.mp4"))
    shutil.copy(video, tmp_path / "a.mp4")
    for given in (str(tmp_path / "a.mp4"), "0", *(f"{scheme}://there/a" for scheme in live_source.SCHEMES)):
        LiveSource(given)
    with served(pictures=1, connections=0) as address, pytest.raises(OSError, match="-> look whether the camera is on"):
        live(address, LiveConfig())
    with served(pictures=2, connections=1) as address, LiveSource(address, 0.1) as camera:    # it is on
        with pytest.raises(OSError, match="-> look at the camera, then start again; --give_up waits longer"):
            assert next(iter(camera)) and list(camera)
    with served(pictures=2, connections=2) as address, LiveSource(address, LiveConfig(give_up=30).give_up,
                                                                  lambda line: None) as camera:
        assert max(shown.number for shown, _ in zip(camera, range(4), strict=False) if shown) >= 2


class Camera:
    """cv2.VideoCapture of a camera that shows a person who looks, and goes away once."""

    opened: list[object] = []

    def __init__(self, *given: object) -> None:
        self.opened.append(given[0])
        self.left = 12 if len(self.opened) in (1, 3) else 0

    def isOpened(self) -> bool:
        return self.left > 0

    def read(self) -> tuple[bool, object]:
        time.sleep(0.03)
        self.left -= 1
        return self.left >= 0, moving(1, still(20, 60))[0]

    def release(self) -> None: ...


def test_a_look_ends_when_the_camera_goes_away_and_another_begins_when_it_is_back(monkeypatch, capsys):
    monkeypatch.setattr(Camera, "opened", [])
    monkeypatch.setattr(live_source.cv2, "VideoCapture", Camera)
    with pytest.raises(OSError, match=r"camera 7: gave no picture for 0\.3 s"):
        live("7", LiveConfig(give_up=0.3))
    events = [event["event"] for line in map(json.loads, capsys.readouterr().out.splitlines())
              for event in line["events"]]
    assert events == ["starts looking", "people looking", "stops looking", "people looking"] * 2
    assert set(Camera.opened) == {7} and len(Camera.opened) >= 4


def test_a_camera_is_tried_until_the_time_to_give_up_has_passed(monkeypatch):
    monkeypatch.setattr(Camera, "opened", [])
    monkeypatch.setattr(live_source.cv2, "VideoCapture", Camera)
    monkeypatch.setattr(live_source, "PAUSES", (0.4, 9))
    said: list[str] = []
    with LiveSource("7", 1.2, said.append) as camera, pytest.raises(OSError, match="gave no picture for 1.2 s"):
        list(camera)
    pauses = [float(line.rpartition(" in ")[2].removesuffix(" s")) for line in said[:2]]
    assert pauses[0] == 0.4 and 0 < pauses[1] <= 0.8
    assert len(Camera.opened) >= 4               # the third gave pictures again, 1.2 s after the last of the first


@pytest.mark.parametrize(("flag", "value"), [("every", -1), ("smooth", 11), ("give_up", -1), ("detector_size", 10)])
def test_settings_without_sense_are_refused(flag, value):
    with pytest.raises(ValueError, match=f"--{flag} {value} -> give"):
        LiveConfig(**{flag: value})
    assert LiveConfig(**{flag: 64 if flag == "detector_size" else 10})


def test_ctrl_c_ends_it_and_says_what_was_done(tmp_path):
    path = film(tmp_path / "long.mp4", moving(600, still(20, 60)))
    code = ("import sys; from squares import Reader, Squares; from gazepose import api, live; "
            "from gazepose.processes import command; from gazepose.watch.config import LiveConfig\n"
            "api.load_networks = lambda size=None: (Squares(), Reader())\n"
            "with command('live'): live.live(sys.argv[1], LiveConfig())")
    log = tmp_path / "log"
    pid, = warm.start("-c", code, str(path), cwd=tmp_path, logs=[log])
    ends = time.monotonic() + 60
    while not log.exists() or log.read_text().count("\n") < 8:
        assert time.monotonic() < ends
        time.sleep(0.02)
    os.kill(pid, signal.SIGINT)
    assert warm.wait([pid], 30) == [0]
    *lines, last = log.read_text().splitlines()
    assert [json.loads(line)["time"] for line in lines][-1] < 15 and last.startswith("live: ")
    assert [event["event"] for event in json.loads(lines[-1])["events"]] == ["stops looking", "people looking"]


def test_it_ends_when_nobody_reads_its_lines(tmp_path):
    path = film(tmp_path / "long.mp4", moving(600, still(20, 60)))
    code = ("import os, sys; from squares import Reader, Squares; from gazepose import api, live; "
            "from gazepose.output import lasting_output; from gazepose.watch.config import LiveConfig\n"
            "api.load_networks = lambda size=None: (Squares(), Reader())\n"
            "read, write = os.pipe(); os.dup2(write, 1); os.close(write); os.close(read)\n"
            "with lasting_output(): live.live(sys.argv[1], LiveConfig())")
    code_of_end, output = warm.python("-c", code, str(path), cwd=tmp_path, timeout=60)
    assert code_of_end == 0 and "live: 1 picture " in output
