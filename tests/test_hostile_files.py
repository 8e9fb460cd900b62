"""Files that could run code or lead outside their folder: a named error, nothing run, nothing reached.
"""

import copy
import csv
import io
import json
import math
import os
import pickle
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import challenge, clip_of, small_index
from safetensors.torch import save
from test_annotations import document
from test_boxes import HEADER
from torch import nn

from gazepose.compat.checkpoints import read_published
from gazepose.compat.start import start_from
from gazepose.data import annotations
from gazepose.data import box_table as boxes
from gazepose.data.challenge import list_videos, parse_name
from gazepose.data.chunks import Chunks
from gazepose.data.index import Index, digest_of
from gazepose.data.tracks import POLICIES
from gazepose.doctor.checks import Findings
from gazepose.doctor.tables import check_table
from gazepose.evaluation.examples import read_copy, shown_faces
from gazepose.evaluation.submission import check, csv_to_json
from gazepose.io import read_arrays, sha256_of, write_json
from gazepose.models.backbone import create_backbone
from gazepose.priors.head_pose import read_hopenet
from gazepose.priors.import_files import parse_key, read_priors
from gazepose.report.records import read_records
from gazepose.source import find_source
from gazepose.tensor_files import MAX_HEADER, MAX_TENSORS, read_tensors
from gazepose.training import checkpoint, runlog

CLEAN = POLICIES["clean"]


# Names that lead out

PREFIXES = ["../", "..\\", "/", "//", "./../", "~/", "%2e%2e/", "..%2f", "..%5c", "..%c0%af", "\x00../", ".../...//",
            "file:///", "C:\\", "\\\\host\\", "..;/", " ../", "..\n/", "\uff0e\uff0e/", "\u2025/"]
GOALS = ["etc/passwd", "x", "", "a/../../b", "videos", "train.list", "x\u202egnp", "a" * 200]
ESCAPES = [prefix + goal for prefix in PREFIXES for goal in GOALS]


def refused(read: Callable[[], Any]) -> bool:
    try:
        return not read()
    except ValueError as error:
        return "->" in str(error)


def test_no_name_leads_out_of_its_folder(tmp_path):
    index = small_index(tmp_path / "prepared" / "train")
    contents = json.loads((index.folder / "index.json").read_text())
    weights = tmp_path / "weights"
    checkpoint.save_weights(weights, nn.Linear(1, 1), {})

    def of_list(text: str) -> Any:
        (tmp_path / "train.list").write_text(text + "\nc\n")
        return annotations.read_split(tmp_path / "train.list")[:-1]

    def of_annotation(text: str) -> Any:
        return annotations.raw_tracks(document(track_id=text)["videos"][0]["clips"][0], CLEAN, annotations.Counter())

    def of_table(place: int) -> Callable[[str], Any]:
        def read(text: str) -> Any:
            values = ["c", "t", "1", "0", "0", "9", "9"]
            values[place] = text
            line = io.StringIO()
            csv.writer(line).writerow(values)
            (tmp_path / "b.csv").write_text(f"{HEADER}\n{line.getvalue()}", newline="")
            return boxes.read_table(tmp_path / "b.csv")
        return read

    def of_index(kind: str) -> Callable[[str], Any]:
        def read(text: str) -> Any:
            changed = copy.deepcopy(contents)
            (changed["files"]["box"] if kind == "files" else changed["shards"][0])["file"] = text
            del changed["sha256"]
            (index.folder / "index.json").write_text(json.dumps({**changed, "sha256": digest_of(changed)}))
            return Index.open(index.folder)
        return read

    def of_manifest(text: str) -> Any:
        (weights / checkpoint.MANIFEST).write_text(json.dumps({text: "0" * 64}))
        return checkpoint.verify(weights)

    def of_original(text: str) -> Any:
        folder = tmp_path / "original" / "c"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{text.replace('/', '_')}.json"
        if "\x00" in name or len(name.encode()) > 255:
            return None                                                # no file system has such a name
        (folder / name).write_text("[]")
        tracks_found = annotations.original_tracks(tmp_path / "original", "c", annotations.Counter())
        (folder / name).unlink()
        return [raw for raw in tracks_found if not annotations.is_id(raw.track)]

    readers = {"split list": of_list, "annotation": of_annotation, "boxes: clip": of_table(0),
             "boxes: track": of_table(1),
             "priors": lambda text: parse_key(f"{text}:t:1") or parse_key(f"c:{text}:1") or parse_key(f"c:t:{text}:1"),
             "test crop": lambda text: parse_name(f"00001_{text}.jpg"), "index": of_index("files"),
             "shard": of_index("shards"), "manifest": of_manifest, "json_original": of_original}
    count = {name: sum(refused(lambda read=read, text=text: read(text)) for text in ESCAPES)
             for name, read in readers.items()}
    assert len(set(ESCAPES)) == 160 and count == dict.fromkeys(readers, 160)
    assert of_list("a-1") and of_annotation("a-1") and of_table(1)("a-1") and parse_name("00001_a-1.jpg")  # a good one


def test_folders_of_the_test_set_that_are_no_ids_are_not_read(tmp_path):
    challenge(tmp_path, ["v/t/a.jpg", "v v/t/a.jpg", "...v/t/a.jpg", "\uff0e\uff0e/t/a.jpg"])
    assert list_videos(tmp_path / "videos_challenge") == ["...v", "v"]


# Files that would run code

class Bomb:
    def __init__(self, fired: Path) -> None:
        self.fired = fired

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.fired),)


def test_a_bomb_in_any_file_that_is_read_does_not_go_off(tmp_path):
    fired = tmp_path / "fired"
    raw, objects = pickle.dumps(Bomb(fired)), np.array([Bomb(fired)], object)
    legacy, modern, arrays, column = (io.BytesIO() for _ in range(4))
    torch.save({"a": Bomb(fired)}, legacy, _use_new_zipfile_serialization=False)
    torch.save({"a": Bomb(fired)}, modern)
    np.savez(arrays, clip=objects, track=objects, frame=objects, label=objects, row=objects, score=objects, key=objects,
             counts=objects, told=objects, sizes=objects)
    np.save(column, objects)
    forms = {"raw": raw, "legacy": legacy.getvalue(), "zip": modern.getvalue(), "npz": arrays.getvalue(),
             "npy": column.getvalue()}
    world, run, weights = tmp_path / "world", tmp_path / "run", tmp_path / "weights"
    for folder in (world / "priors", world / "truth", world / "boxes", world / "split", run / "pred"):
        folder.mkdir(parents=True)
    checkpoint.save_weights(weights, nn.Linear(1, 1), {})
    index = small_index(tmp_path / "prepared" / "train")
    contents = json.loads((index.folder / "index.json").read_text())
    columns = [index.folder / entry["file"] for entry in contents["files"].values()]
    clip = clip_of(tmp_path / "c.mp4", tmp_path, [1])

    def refuses(read: Callable[[Path], Any]) -> Callable[[Path], None]:
        def reads(path: Path) -> None:
            with pytest.raises((ValueError, FileNotFoundError, EOFError)):
                read(path)
                pytest.fail(f"{path} was read")
        return reads

    def examined(path: Path) -> None:
        findings = Findings()
        check_table(world, path.parent.name, "train", {}, findings)
        assert "file_unusable" in findings.by_kind

    def trained(name: str) -> Callable[[Path], None]:
        def resumes(path: Path) -> None:
            model = nn.Linear(1, 1)
            manifest = {file.name: sha256_of(file) for file in weights.iterdir() if file.suffix != ".json"}
            (weights / checkpoint.MANIFEST).write_text(json.dumps(manifest))
            write_json(weights / checkpoint.PROGRESS, {**asdict(checkpoint.Progress()), "scaler": None})
            checkpoint.resume(weights, model, torch.optim.AdamW(model.parameters()), None, 1)
        return resumes

    opens = refuses(lambda path: Index.open(index.folder))
    readers: list[tuple[Path, Callable[[Path], None]]] = [
        (tmp_path / "w.pth", refuses(read_published)), (tmp_path / "w.pth", refuses(checkpoint.read_model)),
        (tmp_path / "w.pth", refuses(lambda path: start_from(nn.Linear(1, 1), path))),
        (tmp_path / "hopenet.pkl", refuses(read_hopenet)), (tmp_path / "t.safetensors", refuses(read_tensors)),
        (weights / checkpoint.WEIGHTS, refuses(trained("weights"))),
        (weights / checkpoint.OPTIMIZER, refuses(trained("optimizer"))),
        (weights / checkpoint.MANIFEST, refuses(lambda path: checkpoint.read_model(weights))),
        (world / "priors" / "train.npz", refuses(read_arrays)), (world / "priors" / "train.npz", examined),
        (world / "truth" / "train.npz", examined),
        (world / "boxes" / "train.csv", refuses(boxes.read_table)),
        (world / "split" / "train.list", refuses(annotations.read_split)),
        (world / "av_train.json", refuses(annotations.read_object)),
        (world / "world.json", refuses(lambda path: find_source(world))),
        (world / "pose.json", refuses(lambda path: read_priors([path], "head_pose"))),
        (world / "pose.csv", refuses(lambda path: read_priors([path], "head_pose"))),
        (run / "config.json", refuses(lambda path: read_records(run))),
        (run / "pred" / "val.npz", refuses(lambda path: read_records(run))),
        (run / "pred" / "val.source.json", refuses(lambda path: shown_faces(run / "pred" / "val.npz", np.arange(1)))),
        (run / "pred" / "val.faces.npz", refuses(lambda path: read_copy(path, ""))),
        (run / "submission.json", refuses(lambda path: check(path, []))),
        (run / "test.csv", refuses(lambda path: csv_to_json(path, run / "out.json"))),
        (index.folder / "index.json", opens), *((path, opens) for path in columns),
        (clip.table, lambda path: pytest.fail("made") if clip.is_finished() else None),
        (tmp_path / "0000000000-0.npy", lambda path: pytest.fail("made") if Chunks(
            tmp_path, 2, 2, (3,), np.float32).files() != [None] else None)]
    tried = 0
    for path, read in readers:
        original = path.read_bytes() if path.exists() else None
        for content in forms.values():
            path.write_bytes(content)
            read(path)
            tried += 1
        path.unlink()
        if original is not None:
            path.write_bytes(original)
    assert tried == len(readers) * len(forms) >= 150 and not fired.exists()
    for content in (raw, pickle.dumps(objects)):                       # and they were live ones
        pickle.loads(content)
        fired.rmdir()
    torch.load(io.BytesIO(forms["zip"]), weights_only=False)
    fired.rmdir()
    np.load(io.BytesIO(forms["npy"]), allow_pickle=True)
    assert fired.exists()


# Tensors

def packed(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, dtype: str = "F32", shape: Any = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


HOSTILE = {
    "a header past the end": packed({"weight": entry(0, 4)}, bytes(4), 1 << 40),
    "a header of 2**63 bytes": packed({"weight": entry(0, 4)}, bytes(4), (1 << 63) + 1),
    "a huge header": packed(b'{"weight": "' + b"x" * (MAX_HEADER + 1) + b'"}'),
    "too many entries": packed(b"{" + b",".join(b'"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % n
                                                for n in range(MAX_TENSORS + 1)) + b"}"),
    "overlapping": packed({"weight": entry(0, 4), "bias": entry(2, 6)}, bytes(8)),
    "a hole": packed({"weight": entry(0, 4), "bias": entry(8, 12)}, bytes(12)),
    "past the data": packed({"weight": entry(0, 4), "bias": entry(4, 1 << 50)}, bytes(8)),
    "a shape that overflows": packed({"weight": entry(0, 4, shape=(1 << 40, 1 << 40))}, bytes(4)),
    "a negative shape": packed({"weight": entry(0, 4, shape=(-1,))}, bytes(4)),
    "an unknown dtype": packed({"weight": entry(0, 4, "F4")}, bytes(4)),
    "another dtype": save({"weight": torch.zeros(1, 1, dtype=torch.float64), "bias": torch.zeros(1)}),
    "a name twice": packed(b'{"weight":%b,"weight":%b}' % ((json.dumps(entry(0, 4)).encode(),) * 2), bytes(4)),
    "nested": packed(b'{"a":' * 100_000 + b"}" * 100_000), "a list": packed([]), "nothing": b"",
    "not finite": save({"weight": torch.full((1, 1), math.nan), "bias": torch.zeros(1)}),
    "cut short": save({"weight": torch.zeros(1, 1), "bias": torch.zeros(1)})[:-2]}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_tensors_are_refused_within_a_second(tmp_path, kind):
    (tmp_path / checkpoint.WEIGHTS).write_bytes(HOSTILE[kind])
    began = time.process_time()
    for read in (lambda: checkpoint.load_weights(tmp_path, nn.Linear(1, 1)),
                 lambda: read_hopenet(tmp_path / checkpoint.WEIGHTS) if kind != "another dtype" else int("x")):
        with pytest.raises(ValueError, match=r"model\.safetensors.* -> |invalid literal"):
            read()
    assert len(HOSTILE) >= 12 and time.process_time() - began < 1
    (tmp_path / checkpoint.WEIGHTS).write_bytes(save(nn.Linear(1, 1).state_dict()))
    checkpoint.load_weights(tmp_path, nn.Linear(1, 1))                 # a good one


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "hf_hub:someone/model", "local-dir:/tmp", "../resnet18",
                                  "x" * 999])
def test_a_backbone_is_a_name_of_timms_own(name, monkeypatch):
    def connects(*_: Any) -> None:
        raise AssertionError("a connection")
    monkeypatch.setattr(socket.socket, "connect", connects)
    with pytest.raises(ValueError, match="backbone: timm has no"):
        create_backbone(name)


# JSON and settings

TRAPS = {"nan": b'{"step": NaN, "format": NaN, "version": NaN, "preset": "tiny", "seed": NaN}',
         "inf": b'{"seed": 1e999}',
         "twice": b'{"a": 1, "a": 2}', "deep": b'{"a":' * 200_000, "list": b"[1]", "number": b"7", "null": b"null",
         "empty": b"", "latin": b'{"a": "\xff"}', "long": b'{"a": ' + b"9" * 9000 + b"}", "text": b'"' + b"x" * 99}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_in_any_json_is_a_named_error(tmp_path, trap):
    content, weights, run = TRAPS[trap], tmp_path / "weights", tmp_path / "runs" / "one"
    checkpoint.save_weights(weights, nn.Linear(1, 1), {})
    run.mkdir(parents=True)
    index = small_index(tmp_path / "prepared" / "train")

    def manifest_anew() -> None:
        (weights / checkpoint.MANIFEST).write_text(json.dumps({
            name: sha256_of(weights / name) for name in (checkpoint.WEIGHTS, checkpoint.CONFIG)}))

    def resumes() -> None:
        model = nn.Linear(1, 1)
        checkpoint.resume(weights, model, torch.optim.SGD(model.parameters()), None, 1)

    readers = [(weights / checkpoint.PROGRESS, resumes),
               (index.folder / "index.json", lambda: Index.open(index.folder)),
               (weights / checkpoint.CONFIG, lambda: (manifest_anew(), checkpoint.read_model(weights))),
               (tmp_path / "world.json", lambda: find_source(tmp_path)),
               (tmp_path / "submission.json", lambda: check(tmp_path / "submission.json", [("v", "u", "t")])),
               (weights / checkpoint.MANIFEST, lambda: checkpoint.read_model(weights))]
    for path, read in readers:
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            read()
        assert str(error.value).startswith(f"{path}: ") and " -> " in str(error.value), (path.name, error.value)
    (run / "status.json").write_bytes(content)
    if trap not in ("nan", "inf"):                                     # these are objects without a state
        with pytest.raises(ValueError, match=r"status\.json: .* -> "):
            runlog.newest_finished(run.parent)
