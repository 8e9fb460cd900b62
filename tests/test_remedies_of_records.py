"""Remedies for streams, runs, networks and priors; what a message says helps. States as in test_remedies_of_inputs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import data_set, list_faces, prepare, prepared_index, refused_until_mended, small_index, write_video
from rig import save_once
from test_models import published_file, small
from test_remedies import remedy_of
from test_remedies_of_files import EXPERIMENT
from test_remedies_of_inputs import State, given, written

from gazepose import verbs
from gazepose.compat.checkpoints import read_published
from gazepose.compat.start import start_from
from gazepose.data.annotations import policy_named
from gazepose.data.index import Index
from gazepose.data.streaming import VideoIndex, open_index
from gazepose.data.windows import WindowConfig, WindowRule, _probability, centre_rows, quality_fit
from gazepose.doctor import examine
from gazepose.evaluation.metrics import head_pose_scores
from gazepose.evaluation.submission import check, csv_to_json
from gazepose.experiments.plan import FILES as EXPERIMENTS
from gazepose.experiments.plan import read_experiment
from gazepose.io import UnusableFile, open_regular, plain_file, plain_folder, read_json, read_object, writing_folder
from gazepose.models import ModelConfig
from gazepose.models.backbone import create_backbone
from gazepose.priors import commands
from gazepose.priors.head_pose import Hopenet, read_hopenet
from gazepose.priors.import_files import read_priors
from gazepose.report import _replacing, make_comparison
from gazepose.report.records import read_records
from gazepose.source import find_source, prepared_indexes
from gazepose.synthetic.stills import render_stills
from gazepose.tensor_files import read_tensors, read_torch_file, save_tensors
from gazepose.text import read_text
from gazepose.training import checkpoint

LSTM = {"backbone": "resnet18", "model": "GazeLSTM"}


def changed_video(tmp: Path) -> State:
    root = data_set(tmp, {"c": [("t", [1, 2])]}, frames=5)
    opened = [open_index(list_faces(root, "train"))]
    write_video(root / "videos" / "c.mp4", 7)
    return (lambda: opened[0].jpeg(0), "run again; they are listed again",
            lambda: opened.__setitem__(0, open_index(list_faces(root, "train"))))


def damaged_stream(tmp: Path) -> State:
    root = data_set(tmp, {"c": [("t", [1, 2])], "d": [("t", [1])]}, frames=5)
    opened = [open_index(list_faces(root, "train", max_bad_fraction=0.9))]

    def scored() -> Any:
        index = opened[0]
        assert isinstance(index, VideoIndex)
        if len(index.clips) == 2:
            index.give_up(1, UnusableFile("d is damaged"), goes_on=False)
        return index.jpeg(0)
    return (scored, "every face must be scored, so run again: from now on clip d is left out",
            lambda: opened.__setitem__(0, open_index(list_faces(root, "train", max_bad_fraction=0.9))))


def no_place(tmp: Path) -> State:
    root, out = data_set(tmp / "set", {"c": [("t", [1])]}, frames=3), tmp / "FOLDER"
    (root / "prepared").touch()              # stands for a folder that cannot be written to
    used = [root]

    def mend() -> None:
        out.mkdir()
        os.system(f"ln -s {root}/* {out}; rm -f {out}/prepared")
        used[0] = out
    return lambda: prepare(used[0], "train"), f"(ln -s {root}/* FOLDER; rm -f FOLDER/prepared), and give it as", mend


def no_fit(tmp: Path) -> State:
    index = [small_index(tmp / "prepared" / "clean-32" / "train")]

    def used() -> Any:
        fit = quality_fit(index[0], "laplacian", WindowRule().behaviour, 1)
        return _probability(index[0], WindowRule(gaussian_drop=True, quality_fit=fit), np.arange(2))

    def mend() -> None:
        commands.show_quality(index, measure=False)
        index[0] = Index.open(index[0].folder)
    return used, "measure it with `python -m gazepose priors quality --data", mend


def other_backbone(tmp: Path) -> State:
    for name, weights in (("a", torch.nn.Linear(1, 1)), ("b", small(**LSTM))):
        checkpoint.save_weights(tmp / name / "best" / "step-00000001", weights, {})
    start, model = [tmp / "a"], small(**LSTM)
    return lambda: start_from(model, start[0]), "give weights of the same backbone", lambda: start.__setitem__(
        0, tmp / "b")


def unknown_file(tmp: Path) -> State:
    torch.save({"state_dict": {"x": torch.zeros(1)}}, tmp / "w.pth")
    return (lambda: read_published(tmp / "w.pth"), "give a checkpoint of Gaze360, GazePose, its GazeLSTM or",
            lambda: published_file(tmp / "w.pth", "GazePose's GazeLSTM", small(**LSTM)))


def cut_weights(tmp: Path) -> State:
    path = [tmp / "a.safetensors"]
    for name in "ab":
        save_tensors({"a": torch.zeros(9)}, tmp / f"{name}.safetensors")
    os.truncate(path[0], 80)
    return lambda: read_tensors(path[0]), "use another checkpoint", lambda: path.__setitem__(0, tmp / "b.safetensors")


def cut_archive(tmp: Path) -> State:
    path = tmp / "w.pth"

    def save() -> None:
        torch.save({"a": torch.zeros(99)}, path)
    save()
    os.truncate(path, 500)
    return lambda: read_torch_file(path), "the file is damaged, or of another kind", save


def other_priors(tmp: Path) -> State:
    index = small_index(tmp / "prepared" / "clean-32" / "train")
    return written(tmp / "p.json", '{"other:t:1": 30.0}', '{"a:t:1": 30.0, "a:t:2": 31.0}', lambda path: (
        commands.import_files([index], [path], "quality")), "check that the file belongs to this data set and split")


def other_number_of_processes(tmp: Path) -> State:
    save_once(tmp, 1)
    folder, how = checkpoint.steps_in(tmp / "checkpoints")[0], [(2, False)]

    def resumed() -> None:
        model = torch.nn.Linear(8, 8)
        checkpoint.resume(folder, model, torch.optim.AdamW(model.parameters()), None, *how[0])
    words = remedy_of(resumed)
    assert words.startswith("start 1 for bit-identical")
    checkpoint_of_one, how[0] = how[0], (1, False)
    resumed()
    how[0] = checkpoint_of_one
    return resumed, "or add --processes any", lambda: how.__setitem__(0, (2, True))


def link_of_report(tmp: Path) -> State:
    (tmp / "there").mkdir()
    (tmp / "report").symlink_to(tmp / "there")

    def report() -> None:
        with _replacing(tmp / "report") as folder:
            (folder / "report.html").touch()
    return report, "remove the link", (tmp / "report").unlink


def folder_made_already(tmp: Path) -> State:
    (tmp / "out").mkdir()

    def made() -> None:
        with writing_folder(tmp / "out") as part:
            (part / "a").touch()
    return made, "delete it to make it again", (tmp / "out").rmdir


def other_stills(tmp: Path) -> State:
    def rendered() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("gazepose.synthetic.stills._render", lambda folder, *_: small_index(folder))
            patch.setattr("gazepose.synthetic.stills.Index.open", lambda folder: opened[0])
            return render_stills(tmp, "tiny", 0, 5, 32, notify=lambda line: None)
    opened: list[Any] = [small_index(tmp / "other")]
    facts = {"preset": "tiny", "seed": 0, "count": 5, "crop_size": 32}
    from gazepose.synthetic.stills import VERSION

    def mend() -> None:
        shutil.rmtree(tmp / "stills" / "32")
        opened[0].contents["facts"].update(facts, version=VERSION)
    return rendered, "delete this folder", mend


def other_submission(tmp: Path) -> State:
    names = [("v", "u", "t"), ("v", "u2", "t")]
    (tmp / "p.csv").write_text("v,u,t,1,0.5\n")
    csv_to_json(tmp / "p.csv", tmp / "s.json")

    def mend() -> None:
        (tmp / "p.csv").write_text("v,u,t,1,0.5\nv,u2,t,1,0.5\n")
        csv_to_json(tmp / "p.csv", tmp / "s.json")
    return lambda: check(tmp / "s.json", names), "infer` on the whole test split, and build it again", mend


# Runs, experiments and other files

def experiment(bad: str, words: str) -> Callable[[Path], State]:
    return lambda tmp: written(tmp / "e.toml", bad, EXPERIMENT.format("b", "b"), read_experiment, words)


def two_runs(tmp: Path) -> State:
    runs = [tmp / "a", tmp / "a"]

    def mend() -> None:
        shutil.copytree(tmp / "a", tmp / "b")
        runs[1] = tmp / "b"
    (tmp / "a").mkdir()
    (tmp / "a" / "status.json").write_text('{"state": "finished"}')
    return lambda: make_comparison(runs, tmp / "out"), "name each run once", mend


def taken_folder(tmp: Path) -> State:
    out = [tmp / "out"]
    out[0].mkdir()
    (out[0] / "thesis.tex").touch()
    for name in "ab":
        (tmp / name).mkdir()
        (tmp / name / "status.json").write_text('{"state": "finished"}')
    return (lambda: make_comparison([tmp / "a", tmp / "b"], out[0]), "give --out a new folder",
            lambda: out.__setitem__(0, tmp / "new"))


def hopenet(tmp: Path) -> State:
    path = tmp / "h.pkl"
    torch.save({"a": torch.zeros(1)}, path)
    model = Hopenet()
    state = {key.removeprefix("features.").replace("heads.", "fc_"): value for key, value in model.state_dict().items()}
    return lambda: read_hopenet(path), "give a snapshot of Hopenet", lambda: torch.save(state, path)


def pipe(read: Callable[[Path], Any], words: str) -> Callable[[Path], State]:
    def state(tmp: Path) -> State:
        os.mkfifo(tmp / "f.json")

        def mend() -> None:
            (tmp / "f.json").unlink()
            (tmp / "f.json").write_text("{}")
        return lambda: read(tmp / "f.json"), words, mend
    return state


def link(read: Callable[[Path], Any], words: str, folder: bool) -> Callable[[Path], State]:
    def state(tmp: Path) -> State:
        (tmp / "there").mkdir() if folder else (tmp / "there").touch()
        (tmp / "here").symlink_to(tmp / "there")

        def mend() -> None:
            (tmp / "here").unlink()
            (tmp / "there").rename(tmp / "here")
        return lambda: read(tmp / "here"), words, mend
    return state


def torch_file(bad: Any, words: str) -> Callable[[Path], State]:
    def state(tmp: Path) -> State:
        path = tmp / "w.pth"
        torch.save(bad, path)
        return lambda: read_torch_file(path), words, lambda: torch.save({"a": torch.zeros(2)}, path)
    return state


def other_world(tmp: Path) -> State:
    (tmp / "w").mkdir()
    (tmp / "w" / "world.json").write_text('{"preset": "gone", "seed": 0}')
    return (lambda: find_source(tmp / "w"), "render it again",
            lambda: (tmp / "w" / "world.json").write_text('{"preset": "tiny", "seed": 0, "version": 9}'))


def not_prepared(tmp: Path) -> State:
    root = data_set(tmp, {"c": [("t", [1])]}, frames=3)
    return (lambda: prepared_indexes(root, ["train"]), f"`python -m gazepose prepare --split train --data {root}`",
            lambda: prepare(root, "train"))


FILES: list[Callable[[Path], State]] = [
    two_runs, taken_folder, hopenet, other_world, not_prepared,
    experiment("title=", f"see {EXPERIMENTS} for examples"),
    experiment(EXPERIMENT.format("=b", "=b"), "begin with a letter or a digit"),
    experiment(EXPERIMENT.format("b", "b") + 'flags="--data there"\n', "give it to sweep: --data, --start or --flags"),
    experiment(EXPERIMENT.format("b", "b") + 'flags="--lr \'1"\n', "close the quotation"),
    experiment(EXPERIMENT.format("b", "b") + 'other=3\n', f"see {EXPERIMENTS} for examples"),
    experiment('row=["a"]\n', f"see {EXPERIMENTS}"),
    experiment('name="../x"\n' + EXPERIMENT.format("b", "b"), "give letters, digits, _ . - only"),
    pipe(open_regular, "put the file itself there"), pipe(read_object, "put the JSON file itself there"),
    link(lambda path: plain_file(path, "image", 99), "or put the file there", folder=False),
    link(lambda path: plain_folder(path, "folder"), "or put the folder there", folder=True),
    lambda tmp: written(tmp / "a.json", "[", "{}", read_object, "use another copy"),
    lambda tmp: written(tmp / "a.json", "[]", "{}", read_object, "use another copy"),
    lambda tmp: (lambda: read_json(tmp / "a.json"), "or the path is wrong", lambda: (tmp / "a.json").write_text("1")),
    lambda tmp: written(tmp / "a.txt", b"\xff", "a", read_text, "use another copy"),
    lambda tmp: (lambda: read_records(tmp / "run"), "give the folder of a training run", lambda: (
        (tmp / "run").mkdir(), (tmp / "run" / "status.json").write_text('{"state": "finished"}'))),
    lambda tmp: written(tmp / "run" / "status.json", '{"step": "x"}', '{"step": 1}',
                        lambda path: read_records(path.parent), "remove it and report again"),
    torch_file([1, 2], "save one with torch.save"), torch_file({"a": torch.zeros(2).to_sparse()}, "save only its"),
    lambda tmp: (lambda: read_torch_file(tmp / "w.pth"), "check the path", lambda: torch.save(
        {"a": torch.zeros(1)}, tmp / "w.pth")),
    lambda tmp: (lambda: read_priors([tmp / "p.json"], "quality"), "give the priors' JSON or CSV file", lambda: (
        tmp / "p.json").write_text('{"c:t:1": 30.0}')),
    lambda tmp: written(tmp / "p.json", '{"c:t:1": 3', '{"c:t:1": 30.0}', lambda path: read_priors([path], "quality"),
                        "get the file again"),
    lambda tmp: written(tmp / "p.csv", "a,b\n1,2\n", "clip,track,frame,quality\nc,t,1,30\n",
                        lambda path: read_priors([path], "quality"), "give a table with clip,track,frame,quality")]


# Streams, networks and priors

STATES = [
    changed_video, damaged_stream, no_place, no_fit, other_backbone, unknown_file, cut_weights, other_priors,
    other_number_of_processes, link_of_report, folder_made_already, other_stills, other_submission,
    given(policy_named, "use baseline or clean", ("dirty",), ("clean",)),
    lambda tmp: given(lambda split: prepare(data_set(tmp, {"c": [("t", [1])]}, frames=3), split),
                      "use train, val, test", ("dev",), ("train",))(tmp),
    lambda tmp: given(lambda source: prepared_index(data_set(tmp, {"c": [("t", [1])]}, frames=3), crops_from=source),
                      "use videos, images, faces", ("films",), ("videos",))(tmp),
    lambda tmp: given(lambda stride: centre_rows(small_index(tmp / "i"), stride), "give a stride of 1 or more",
                      (0,), (1,))(tmp),
    given(lambda number: WindowConfig(windows_per_segment=number), "give 1 or more", (0,), (1,)),
    given(lambda size: ModelConfig(image_size=size), "give 16 to 1024", (9,), (16,)),
    given(lambda name: create_backbone(name, 32), "leave out what follows the first dot", ("resnet18.none",),
          ("resnet18",)),
    given(lambda stride: create_backbone("vit_tiny_patch16_224", stride, 96), "use output_stride 32", (8,), (32,)),
    given(lambda size: create_backbone("vit_tiny_patch16_224", 32, size), "a multiple of its patches", (100,), (96,)),
    given(lambda fit: head_pose_scores(fit, np.zeros((2, 3))), "config.json was altered (head_pose_fit)", ([1.0],),
          ([0.0] * 11,)),
    lambda tmp: (lambda: examine(tmp / "set"), "give a data set in the Ego4D layout", lambda: data_set(
        tmp / "set", {"c": [("t", [1])]}, frames=3)),
    lambda tmp: given(lambda data: find_source(data), "or leave --data out for the embedded world", (tmp / "no",),
                      (None,))(tmp),
    lambda tmp: written(tmp / "p.json", "[1]", '{"c:t:1": 30.0}', lambda path: read_priors([path], "quality"),
                        "give a JSON object of clip:track:frame -> values"),
    lambda tmp: written(tmp / "p.json", '{"c:t:1": 30.0, "c:t": 30.0}', '{"c:t:1": 30.0}',
                        lambda path: read_priors([path], "quality"), "quality needs clip:track:frame -> "),
    lambda tmp: given(lambda *names: read_priors(names, "quality"), "give one or more JSON or CSV files", (),
                      (written(tmp / "p.json", '{"c:t:1": 30.0}', "", Path, "") and tmp / "p.json",))(tmp),
    lambda tmp: given(checkpoint.weights_folder, "name a run under runs/", (tmp,), (
        save_once(tmp / "run", 1) or tmp / "run" / "checkpoints" / "step-00000001",))(tmp),
    cut_archive]


test_what_was_refused_is_taken_once_the_remedy_is_done = refused_until_mended(*FILES, *STATES)


def test_hopenet_is_the_users_own(tmp_path):
    assert "give your own Hopenet snapshot" in remedy_of(lambda: read_hopenet(tmp_path / "h.pkl"))
    assert "give --video, --boxes and --out" in remedy_of(lambda: verbs.prepare(video=tmp_path / "v.mp4"))


def test_verbs_run_once_the_flags_that_they_ask_for_are_given(tmp_path):
    assert "give train, val, test or stills" in remedy_of(lambda: verbs.prepare())
    assert "name one or more run folders" in remedy_of(lambda: verbs.chain(()))
    assert "name the runs" in remedy_of(lambda: verbs.report(()))
    assert "such as 3/8" in remedy_of(lambda: verbs.sweep(tmp_path / "e.toml", part="3"))
