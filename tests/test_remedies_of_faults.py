"""Remedies for disks, networks, processes, machines and places; what a message says helps. States as in
test_remedies_of_inputs."""

import errno
import os
import resource
import shutil
import signal
import socket
import threading
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import data_set, prepare, quiet, refused_until_mended, settings_of, small_index
from rig import save_once
from test_agree import coding
from test_remedies import remedy_of
from test_remedies_of_inputs import State, given, written

from gazepose import project_verbs, tensor_files, verbs
from gazepose.compat import checkpoints
from gazepose.config import parse_train
from gazepose.data import prepare as prepare_module
from gazepose.evaluation.examples import shown_faces
from gazepose.evaluation.predictions import save_scores
from gazepose.evaluation.submission import check, csv_to_json
from gazepose.io import lock
from gazepose.processes import EXIT_PREEMPTED, Processes, command
from gazepose.source import Source
from gazepose.tensor_files import in_child, read_tensors, read_torch_file, save_tensors
from gazepose.training import checkpoint, distributed

# Disks

def full_disk(tmp: Path) -> State:
    save_once(tmp, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = [400]                                         # bytes of a file, as on a disk with no more

    def save() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room[0], hard))
        try:
            save_once(tmp, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            whole = checkpoint.newest_whole(tmp)[0]
            assert whole is not None and whole.name == f"step-0000000{1 if room[0] == 400 else 2}"
    return save, "make room on that disk; earlier checkpoints are whole", lambda: room.__setitem__(0, soft)


def test_one_process_works_in_a_folder_whose_disk_has_no_locks(tmp_path, monkeypatch):
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr("fcntl.flock", no_locks)
    lines: list[str] = []
    root = data_set(tmp_path, {"c": [("t", [1, 2])]}, frames=4)
    folder = prepare(root, "train", notify=lines.append)                 # one process, as the line asks
    assert any("cannot be locked (No locks available) -> start one process on this folder at a time" in line
               for line in lines)
    assert (folder / "index.json").is_file()
    lock(tmp_path / ".lock", lines.append).release()


# Networks

class Hub(BaseHTTPRequestHandler):
    """Answers as the hub of timm's weights does, with the file of `content`."""

    content = b""

    def do_HEAD(self) -> None:
        self.send_response(200)
        for name, value in (("X-Repo-Commit", "0" * 40), ("ETag", '"one"'), ("Content-Length", str(len(self.content)))):
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


def without_network(tmp: Path) -> State:
    patch, name = pytest.MonkeyPatch(), "test_resnet"
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp / "cache"))
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    save_tensors({"conv1.weight": torch.ones(1)}, tmp / "model.safetensors")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Weights", (Hub,), {
        "content": (tmp / "model.safetensors").read_bytes()}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def connect() -> None:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
                      f"http://127.0.0.1:{server.server_port}/{{repo_id}}/{{revision}}/{{filename}}")

    def fetch() -> None:
        checkpoints.fetch_imagenet(name)
        found = checkpoints.cached_imagenet(name)
        assert found and [*found[0]] == ["frames.backbone.conv1.weight"]
        patch.undo()
        server.shutdown()
        server.server_close()
    return fetch, "try again with a network and without HF_HUB_OFFLINE; or give --checkpoint", connect


def test_a_network_without_weights_is_trained_from_a_checkpoint_or_from_random_weights():
    remedy = remedy_of(lambda: checkpoints.fetch_imagenet("test_nothing"))
    assert remedy == "give --checkpoint, or --pretrained no to train from random weights"
    for flags in (["--checkpoint", "w"], ["--pretrained", "no"]):
        assert parse_train(["--preset", "tiny", "--backbone", "test_resnet", *flags])[0].run.pretrained != "yes"


def taken_port(tmp: Path) -> State:
    patch, taken = pytest.MonkeyPatch(), socket.create_server(("127.0.0.1", 0))
    with socket.create_server(("127.0.0.1", 0)) as free:
        ports = [server.getsockname()[1] for server in (taken, free)]
    patch.setattr(distributed, "_store", None)
    for name, value in {"RANK": "0", "MASTER_ADDR": "", "TORCHELASTIC_USE_AGENT_STORE": ""}.items():
        patch.setenv(name, value)

    def meet() -> None:
        distributed.meet_on_loopback(ports[0])
        assert os.environ["MASTER_ADDR"] == "127.0.0.1"
        taken.close()
        patch.undo()
    return meet, "set MASTER_PORT to another for all processes", lambda: ports.pop(0)


# Machines and processes

def other_rows(tmp: Path) -> State:
    clips = {"c": [("t", [1])], "d": [("t", [1])]}
    mine, theirs = (data_set(tmp / name, clips, frames=3) for name in ("mine", "theirs"))
    (theirs / "split" / "train.list").write_text("c\n")

    def start() -> None:
        rows: list[Any] = []
        for root in (theirs, mine):                      # what the second gathers holds the rows of the first

            def gather(value: Any) -> list[Any]:
                if not isinstance(value, list):
                    return [value]
                rows.append(value)
                return rows
            Source(root).split("train", settings_of(decoder="pyav"), Processes(notify=quiet, gather=gather))
    return (start, "give every machine the same annotations, split lists, videos and flags; what is prepared follows",
            lambda: shutil.copy(mine / "split" / "train.list", theirs / "split"))


def test_a_preparation_that_was_stopped_continues_with_the_same_command(tmp_path, monkeypatch, capsys):
    root = data_set(tmp_path, {"c": [("t", [1])], "d": [("t", [1])]}, frames=3)
    cut_clip, cut = prepare_module.cut_clip, []

    def stopped_at_the_second(clip: Any) -> Any:
        if len(cut) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        cut.append(clip.uid)
        return cut_clip(clip)
    monkeypatch.setattr(prepare_module, "cut_clip", stopped_at_the_second)
    with pytest.raises(SystemExit) as ended, command("prepare"):
        prepare(root, "train")
    assert ended.value.code == EXIT_PREEMPTED
    line = capsys.readouterr().err
    assert "prepare: stopped by SIGTERM; finished parts are kept -> the same command continues" in line
    first, = cut
    cut.append("")
    with command("prepare"):
        prepare(root, "train")
    assert cut[2:] == [*{"c", "d"} - {first}]


# Files of torch.save

def junk(tmp: Path, program: str, words: str, seconds: float = 30.0) -> State:
    """A checkpoint with more than tensors, whose reading in a child process goes as a small program says."""
    path, state = tmp / "w.pth", {"a": torch.zeros(2)}
    torch.save({"state_dict": state, "history": "x" * 5000}, path)

    def read() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tensor_files, "CHILD", f"import os, sys, time; large = os.stat(sys.argv[2]).st_size > 5000; "
                                                 f"{program}; print('[]')")
            patch.setattr(tensor_files, "SECONDS", seconds)
            in_child(path, tmp / "copy.safetensors")
    return read, words, lambda: torch.save(state, path)


def unfolds(tmp: Path) -> State:
    path, state = tmp / "w.pth", {"a": torch.zeros(1).expand(1 << 20)}
    torch.save({"state_dict": state}, path)

    def read() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tensor_files, "ROOM", 1 << 16)
            read_torch_file(path)
    return (read, "save only its state_dict, with a .clone() of each tensor",
            lambda: torch.save({name: value.clone() for name, value in state.items()}, path))


def other_tensors(bad: bytes | dict[str, torch.Tensor], tmp: Path) -> State:
    paths = [tmp / "bad.safetensors", tmp / "good.safetensors"]
    paths[0].write_bytes(bad) if isinstance(bad, bytes) else save_tensors(bad, paths[0])
    save_tensors({"a": torch.zeros(9)}, paths[1])
    return lambda: read_tensors(paths[0]), "use another checkpoint", lambda: paths.pop(0)


# Scores and places

def damaged_copy_of_faces(tmp: Path) -> State:
    index, rows = small_index(tmp / "index"), np.arange(5)
    save_scores(tmp / "pred", index, rows, np.ones(5, int), np.full(5, 0.5))
    shown_faces(tmp / "pred" / "train.npz", rows)
    copy = tmp / "pred" / "train.faces.npz"
    columns = {**np.load(copy)}
    np.savez(copy, **{**columns, "row": columns["row"][:2]})

    def show() -> None:
        assert len(shown_faces(tmp / "pred" / "train.npz", rows).crops) == 5
    return show, "delete it, and report again where the data set is", copy.unlink


def other_submission(tmp: Path) -> State:
    (tmp / "pred.csv").write_text("v,u,t,1,0.5\n")
    return written(tmp / "s.json", '{"results": 3}', "", lambda path: check(path, [("v", "u", "t")]),
                   "build it again with `python -m gazepose submit`")[:2] + (
        lambda: csv_to_json(tmp / "pred.csv", tmp / "s.json"),)


def no_stills(cure: str) -> Any:
    def state(tmp: Path) -> State:
        sources = [Source(data_set(tmp / "set", {"c": [("t", [1])]}, frames=3))]
        flags = [["--task", "lam_stills"]]

        def split() -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("gazepose.synthetic.stills.render_stills",
                              lambda root, preset, seed, count, size, notify: small_index(root / "stills" / str(size)))
                task = parse_train(["--preset", "tiny", *flags[0]])[0].run.rows_of
                sources[0].split(task, settings_of(), Processes(notify=quiet))

        def mend() -> None:
            if cure.startswith("--task"):
                flags[0] = cure.split()
            else:
                sources[0] = replace(parse_train(cure.split())[1], root=tmp / "world")
        return split, "give --task lam or gaze_clips, or leave --data out and give --preset", mend
    return state


def wrong_match(tmp: Path) -> State:
    mine = coding(tmp / "mine.csv", ["a,P1,1,2"])
    theirs = coding(tmp / "theirs.csv", ["a,P2,1,2"])
    return given(lambda match: verbs.agree(mine, theirs, match=(match,), out=tmp / "out"),
                 "give NAME_IN_MINE=NAME_IN_THEIRS", ("P1",), ("P1=P2",))(tmp)


def not_a_world(tmp: Path) -> State:
    (tmp / "set").mkdir()
    data: list[Path | None] = [tmp / "set", None]

    def fit() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Source, "ready", lambda source, processes: source)
            patch.setattr("gazepose.watch.readout.fit_on_world", lambda root, out, how: None)
            project_verbs.fit_readout(data[0], out=tmp / "readout.json")
    return fit, "name one, or leave --data out", lambda: data.pop(0)


test_what_was_refused_is_taken_once_the_remedy_is_done = refused_until_mended(
    full_disk, without_network, taken_port, other_rows,
    partial(junk, program="time.sleep(60 * large)", words="save only its state_dict", seconds=0.5),
    partial(junk, program="os.kill(os.getpid(), 11 * large)", words="save only its state_dict"), unfolds,
    partial(other_tensors, b"\xff" * 40), partial(other_tensors, {"a": torch.tensor([np.nan])}), damaged_copy_of_faces,
    other_submission, *map(no_stills, ("--task lam", "--task gaze_clips", "--preset tiny --task lam_stills")),
    wrong_match, not_a_world)
