"""Remedies: what a message tells its reader to do is read out of the message, done, and helps."""

import ast
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from making import data_set, prepared_index, write_video
from test_boxes import HEADER, table, whole
from test_flags import hidden

from gazepose import __main__ as program
from gazepose import verbs
from gazepose.compat.flags import RULES, translate
from gazepose.config import InferConfig, TrainConfig, check_priors, parse, parse_train
from gazepose.data.annotations import policy_named
from gazepose.data.box_table import find_table, lay_out
from gazepose.data.index import Index
from gazepose.data.loader import make_loader
from gazepose.data.video import frames_in_order
from gazepose.data.windows import WindowRule
from gazepose.experiments.ensemble import read_run
from gazepose.experiments.plan import read_experiment
from gazepose.experiments.results import read_records
from gazepose.experiments.sweep import share
from gazepose.models import ModelConfig, build_model
from gazepose.models.backbone import create_backbone
from gazepose.priors import commands
from gazepose.priors.import_files import read_priors
from gazepose.source import chosen_rows
from gazepose.synthetic.presets import PRESETS
from gazepose.training import checkpoint
from gazepose.training.distributed import start_accelerator

PACKAGE = Path(program.__file__).parent
SMALL: dict[str, Any] = {"num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 32, "dim_feedforward": 32,
                         "nheads": 2, "backbone": "test_resnet"}


def remedy_of(attempt: Callable[[], Any], capsys: Any = None) -> str:
    """What the message of a failing attempt says behind its arrow, in one line."""
    with pytest.raises((ValueError, OSError, ImportError, EOFError, SystemExit)) as caught:
        attempt()
    text = str(caught.value) + ("" if capsys is None else "".join(capsys.readouterr()))
    text = " ".join(re.sub("[╭╮╰╯│─]", " ", text).split()).split(" For full helptext")[0]     # in a frame, with a foot
    assert " -> " in text, text
    return text.split(" -> ", 1)[1]


def typed(monkeypatch: pytest.MonkeyPatch, command: str, **names: Path) -> None:
    """python -m gazepose ..., as a message has it, with paths in place of FILE and the like; in this process."""
    words = [str(names.get(word, word)) for word in shlex.split(command)]
    assert words[:3] == ["python", "-m", "gazepose"], command
    monkeypatch.setattr(sys, "argv", ["gazepose", *words[3:]])
    program.main()


def command_in(remedy: str) -> str:
    found = re.search(r"`(python -m gazepose [^`]+)`", remedy)
    assert found, remedy
    return found[1]


# Flags

def parsed(flags: list[str]) -> None:
    config = parse(TrainConfig, flags)
    if "--backbone" in flags:
        create_backbone(config.model.backbone)


def train(flags: list[str]) -> None:
    parse_train(["--preset", "tiny", *flags])


def infer(flags: list[str]) -> None:
    config = parse(InferConfig, flags)
    config.guide.split_name(config.split)


LINES: list[tuple[Callable[[list[str]], None], str, list[str]]] = [    # refused; the remedy's words: a line they make
    (parsed, "--epochs 0", ["give 1 or more: --epochs 1"]), (parsed, "--limit 0", ["give 1 or more rows: --limit 1"]),
    (parsed, "--seed -1", ["give 0 to 2**63 - 1: --seed 0 --seed 9223372036854775807"]),
    (parsed, "--lr 0", ["give a learning rate above 0 and below 10: --lr 9.9"]),
    (parsed, "--save_minutes -1", ["give minutes, or 0: --save_minutes 0"]),
    (parsed, "--train_stride 0", ["give 1 or more: --train_stride 1"]),
    (parsed, "--crop_size 7", ["give 16 to 1024 pixels: --crop_size 16", "16 to 1024: --crop_size 1024"]),
    (parsed, "--max_bad_fraction 2", ["give 0 to 1: --max_bad_fraction 0", "0 to 1: --max_bad_fraction 1"]),
    (parsed, "--split 0", ["give 0.1 to 90: --split 0.1", "0.1 to 90: --split 90"]),
    (parsed, "--dmodel 30", ["give a multiple of both: --dmodel 32"]),
    (parsed, "--backbone resnet81", ["use resnet18 or resnet61q: --backbone resnet61q"]),
    (parsed, "--box_scale 0", ["give 0.1 to 10: --box_scale 0.1", "0.1 to 10: --box_scale 10"]),
    (parsed, "--max_gap -1", ["give 0 or more missing frames: --max_gap 0", "or None to fill all: --max_gap None"]),
    (parsed, "--max_gap few", ["give a whole number or None: --max_gap 3", "a whole number or None: --max_gap None"]),
    (parsed, "--wearer last", ["give first or flag: --wearer first", "give first or flag: --wearer flag"]),
    (parsed, "--rule end_inclusive=maybe", ["give True or False: --rule end_inclusive=True"]),
    (parsed, "--resume", ["name its folder with --exp_path: --resume --exp_path run"]),
    (parsed, "--elastic", ["add --resume: --elastic --resume --exp_path run", "leave --elastic out: --epochs 1"]),
    (parsed, "--cache_features", ["add --freeze_backbone: --cache_features --freeze_backbone"]),
    (parsed, "--cache_features --freeze_backbone --crops video",
     ["give --crops shards: --cache_features --freeze_backbone --crops shards"]),
    (parsed, "--label_loss 0", ["give one a weight above 0: --label_loss 0 --gaze_loss 1"]),
    (train, "--cache_features --freeze_backbone --flip",
     ["leave --flip and --random_crop out: --cache_features --freeze_backbone"]),
    (infer, "--limit -1", ["give 1 or more: --limit 1"]), (infer, "--val_stride 0", ["give 1 or more: --val_stride 1"]),
    (infer, "--split train", ["give val or test: --split val", "give val or test: --split test"]),
    (infer, "--cache_features --flip_average",
     ["leave one of the flags out: --cache_features", "leave one of the flags out: --flip_average"]),
    (infer, "--split 3", ["give val or test: --split val", "--val or --eval beside the number: --split 3 --val",
                          "--val or --eval beside the number: --split 3 --eval"]),
    (infer, "--val --eval", ["give one split: --val", "give one split: --eval"]),
    (infer, "--eval --split val", ["give one split: --eval", "give one split: --split val"]),
    *[(infer, f"--{name} old", ["--data DIR: --data somewhere"]) for name in ("source_path", "gt_path", "test_path")]]


@pytest.mark.parametrize(("program", "line", "cures"), LINES, ids=[line for _, line, _ in LINES])
def test_a_line_that_is_refused_is_taken_once_the_remedy_is_done(program, line, cures, capsys):
    remedy = remedy_of(lambda: program(line.split()), capsys)
    for cure in cures:
        words, flags = cure.split(": ")
        assert words in remedy, remedy
        program(flags.split())


@pytest.mark.parametrize("flag", ["--val", "--eval"])
def test_flags_of_inference_lead_to_its_command(flag):
    remedy = remedy_of(lambda: translate([flag], "train"))
    infer(shlex.split(remedy.partition("accelerate launch infer.py ")[2]))


def test_flags_of_the_model_that_disagree_are_left_out_or_another_checkpoint_is_given():
    guide = parse(InferConfig, ["--val", "--split", "3", "--model", "GazeLSTM"]).guide
    trained = vars(ModelConfig())
    assert "leave the flags out" in remedy_of(lambda: guide.must_agree(trained, Path("run"), "3"))
    parse(InferConfig, ["--val"]).guide.must_agree(trained, Path("run"))
    guide.must_agree({**trained, "split": 3.0, "model": "GazeLSTM"}, Path("another"), "3")


def test_a_rule_that_a_message_lists_is_one():
    remedy = remedy_of(lambda: policy_named("clean", ["gap=3"]))
    for rule in remedy.removeprefix("the rules are ").split(", "):
        assert rule in vars(policy_named("clean"))


@pytest.mark.parametrize(("options", "cures"), [
    ({"backbone": "vit_tiny_patch16_224"}, {"use a network such as resnet18": {"backbone": "resnet18"}}),
    ({"backbone": "mobilenetv3_small_050", "output_stride": 8}, {
        "use output_stride 32": {"output_stride": 32}, "a network such as resnet18": {"backbone": "resnet18"}}),
    ({"model": "GazePos"}, {name: {"model": name} for name in ("GazePose", "GazeLSTM", "BaselineLSTM")}),
    ({"output_stride": 7}, {str(stride): {"output_stride": stride} for stride in (8, 16, 32)})])
def test_a_network_that_a_message_offers_can_be_built(options, cures):
    small = {**SMALL, "backbone": "resnet18"}
    remedy = remedy_of(lambda: build_model(ModelConfig(**{**small, **options})))
    for words, change in cures.items():
        assert words in remedy
        build_model(ModelConfig(**{**small, **options, **change}))


def test_a_part_and_a_preset_that_a_message_offers_are_taken():
    for part in re.findall(r"(\d+)/(\d+)", remedy_of(lambda: share([], (4, 3)))):
        assert share([], (int(part[0]), int(part[1]))) == []
    assert [name for name in PRESETS if name not in remedy_of(lambda: verbs.synthetic(Path("x"), "huge"))] == []  # type: ignore[arg-type]


# Data

def labels(path: Path, text: str) -> Path:
    return table(path, f"c,t,1,0,0,99,99,{text}", f"c,t,2,0,0,99,99,{text}", header=HEADER + ",label")


def test_a_split_without_labels_asks_for_them_and_then_has_rows(tmp_path):
    def rows() -> np.ndarray:
        index = prepared_index(tmp_path)
        make_loader(index, WindowRule(), chosen_rows(index, 1, None, labelled=True), batch_size=1, crop_size=16)
        return index.label
    write_video(tmp_path / "videos" / "c.mp4", 5)
    labels(tmp_path / "boxes" / "train.csv", "")
    name = re.fullmatch(r"write 1 looking or 0 not looking into the column label of (\S+)", remedy_of(rows))
    assert name
    labels(tmp_path / name[1], "1")
    try:
        assert rows().tolist() == [1, 1]
    except ValueError as error:                  # the index is of the old table: the message says how it is made again
        assert "delete the folder; it is made again" in str(error)
        for path in (tmp_path / "prepared").rglob("*"):
            if path.is_file():
                path.unlink()
        for path in sorted((tmp_path / "prepared").rglob("*"), reverse=True):
            path.rmdir()
        assert rows().tolist() == [1, 1]


def test_a_stride_that_meets_no_labelled_row_may_be_smaller(index_of):
    index = index_of([range(4)], label=[-1, 1, -1, 0])
    def load(stride: int) -> None:
        rows = np.arange(0, 4, stride)
        make_loader(index, WindowRule(), rows[index.label[rows] >= 0], batch_size=1, crop_size=16)
    assert remedy_of(lambda: load(2)) == "give a smaller stride"
    load(1)


def test_of_two_tables_one_is_kept_and_a_missing_one_is_put_there(tmp_path):
    table(tmp_path / "boxes" / "val.csv", *whole("c", "t", 1))
    (tmp_path / "boxes" / "val.parquet").write_bytes(b"")
    assert remedy_of(lambda: find_table(tmp_path, "val")) == "keep one of them"
    (tmp_path / "boxes" / "val.parquet").unlink()
    assert find_table(tmp_path, "val")
    assert "put the table there" in remedy_of(lambda: find_table(tmp_path, "train"))
    table(tmp_path / "boxes" / "train.csv", *whole("c", "t", 1))
    assert find_table(tmp_path, "train")


def test_videos_of_ones_own_lie_where_the_messages_want_them(tmp_path):
    video, mine = write_video(tmp_path / "mine" / "c.mp4", 5), tmp_path / "mine"
    boxes, out = table(tmp_path / "b.csv", *whole("c", "t", 1), *whole("d", "t", 1)), tmp_path / "set"
    assert "give the folder of the videos" in remedy_of(lambda: lay_out(boxes, video, out, "val"))
    assert remedy_of(lambda: lay_out(boxes, mine, out, "val")) == "put it there"
    write_video(mine / "d.mp4", 5)
    lay_out(boxes, mine, out, "val")
    other = write_video(tmp_path / "other" / "c.mp4", 6).parent
    write_video(other / "d.mp4", 5)
    assert "name another folder" in remedy_of(lambda: lay_out(boxes, other, out, "val"))
    lay_out(boxes, other, tmp_path / "set2", "val")


def test_another_decoder_reads_what_one_cannot(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    path = write_video(tmp_path / "v.mp4", 3)
    decoder = re.search(r"`--decoder (\w+)`", remedy_of(lambda: list(frames_in_order(path, [0]))))
    assert decoder and len(list(frames_in_order(path, [0, 2], decoder[1]))) == 2             # type: ignore[arg-type]
    train(["--decoder", decoder[1]])


@pytest.mark.parametrize(("settings", "cures"), [
    ({"crops": "video", "crops_from": "images"}, {"give --crops shards": {"crops": "shards", "crops_from": "videos"}}),
    ({"crops_from": "faces", "rules": {"box_scale": 2}}, {
        "leave it out": {"rules": {}, "crops_from": "videos"}, "give --crops_from videos": {"crops_from": "videos"}}),
    ({"max_bad_fraction": 0.0}, {"--max_bad_fraction": {"max_bad_fraction": 0.5}})])
def test_a_setting_that_a_message_offers_prepares_the_data(tmp_path, settings, cures):
    root = data_set(tmp_path, {"c": [("t", [1, 2])], "d": [("t", [1])]})
    (root / "videos" / "d.mp4").unlink()
    settings = {"max_bad_fraction": 0.5, **settings}
    remedy = remedy_of(lambda: prepared_index(root, **settings))
    for words, change in cures.items():
        assert words in remedy, remedy
        assert len(prepared_index(root, **{**settings, **change})) == 2


# Priors

POSES = {"clip:track0:0": [1, 2, 3], "clip:track0:1": [4, 5, 6]}
POINTS = {name: [[x, y, 0, 1] for x, y in ((.5, .5), (.6, .4), (.4, .4), (.57, .7), (.43, .7))] for name in POSES}


@pytest.fixture
def index(index_of, tmp_path) -> Index:
    """Two faces without priors, in a data set of the test's own."""
    import shutil
    folder = index_of([range(2)]).folder
    return Index.open(shutil.copytree(folder, tmp_path / "set" / "prepared" / "clean-16" / "train"))


@pytest.mark.parametrize(("flag", "column", "content"), [
    ("prior_head", "head_pose", POSES), ("prior_landmark", "landmarks", POINTS)])
def test_the_import_that_a_missing_prior_asks_for_makes_it_known(index, tmp_path, monkeypatch, flag, column, content):
    (tmp_path / "priors.json").write_text(json.dumps(content))
    config = ModelConfig(**{flag: True})
    remedy = remedy_of(lambda: check_priors(config, index, np.arange(2), False))
    assert "or add --allow_unknown_priors" in remedy
    check_priors(config, index, np.arange(2), parse_train(["--allow_unknown_priors"])[0].run.allow_unknown_priors)
    typed(monkeypatch, command_in(remedy), FILE=tmp_path / "priors.json")
    check_priors(config, Index.open(index.folder), np.arange(2), False)
    assert np.isfinite(getattr(Index.open(index.folder), column)).all()


def test_the_landmarks_that_a_fitted_pose_asks_for_make_it_possible(index, tmp_path, monkeypatch):
    (tmp_path / "points.json").write_text(json.dumps(POINTS))
    typed(monkeypatch, command_in(remedy_of(lambda: commands.fit_poses([index]))), FILE=tmp_path / "points.json")
    commands.fit_poses([Index.open(index.folder)])


def test_the_import_that_prior_path_asks_for_finds_the_guides_file(index, tmp_path, monkeypatch):
    root = index.folder.parents[2]
    (tmp_path / "FILE.json").write_text(json.dumps(POSES))
    remedy = remedy_of(lambda: translate(["--prior_path", str(tmp_path), "--data", str(root)], "train"))
    command = re.findall(r"`(python -m gazepose priors [^`]+)`", remedy)[0]
    for prior in re.search(r"PRIOR is ([\w, ]+)", remedy)[1].replace(" or ", ", ").split(", "):   # type: ignore[index]
        content = {"head_pose": POSES, "landmarks": POINTS, "quality_p": dict.fromkeys(POSES, 0.5)}[prior]
        (tmp_path / "FILE.json").write_text(json.dumps(content))
        typed(monkeypatch, command.replace("PRIOR", prior))
        assert prior in Index.open(index.folder).columns


def test_a_prior_of_another_kind_or_scale_is_imported_as_the_message_says(index, tmp_path, monkeypatch):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"clip:track0:0": 0.5, "clip:track0:1": 0.9}))
    remedy = remedy_of(lambda: read_priors([path], "quality"))
    assert remedy == "use `priors import quality_p`"
    typed(monkeypatch, f"python -m gazepose priors import quality_p {path} --data {index.folder}")
    path.write_text(json.dumps({name: [[40, 30, 0, 1]] * 5 for name in POSES}))
    remedy = remedy_of(lambda: read_priors([path], "landmarks"))
    assert "divide x by the crop's width and y by its height" in remedy
    path.write_text(json.dumps({name: [[40 / 100, 30 / 100, 0, 1]] * 5 for name in POSES}))
    read_priors([path], "landmarks")


# Checkpoints

def test_published_files_are_used_as_their_messages_say(tmp_path):
    from test_models import published_file, small

    from gazepose.compat.start import import_published, start_from
    gaze360 = published_file(tmp_path / "g", "Gaze360", small(backbone="resnet18", model="GazeLSTM", gaze_head=True))
    remedy = remedy_of(lambda: checkpoint.read_model(gaze360))
    flags = shlex.split(remedy.partition("accelerate launch train.py ")[2])
    file = parse(TrainConfig, flags).run.checkpoint
    assert file is not None
    start_from(small(backbone="resnet18", model="GazeLSTM"), file)
    lstm = published_file(tmp_path / "l.pth", "GazePose's GazeLSTM", small(backbone="resnet18", model="GazeLSTM"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("")
    assert "give --out a new folder" in remedy_of(lambda: import_published(lstm, tmp_path / "taken"))
    import_published(lstm, tmp_path / "new")


@pytest.mark.parametrize("extra", [{"optimizer": Path("x")}, {"then": print}])
def test_a_file_that_could_run_code_is_read_once_its_state_dict_is_saved_alone(tmp_path, extra):
    from test_models import published_file, small

    from gazepose.compat.checkpoints import read_published
    file = published_file(tmp_path / "l.pth", "GazePose's GazeLSTM", small(backbone="resnet18", model="GazeLSTM"))
    trusted = torch.load(file, weights_only=False)
    torch.save({**trusted, **extra}, file)
    assert "save only its state_dict" in remedy_of(lambda: read_published(file))
    torch.save(torch.load(file, weights_only=False)["state_dict"], file)
    read_published(file)


def test_the_training_that_a_missing_run_asks_for_is_a_command(tmp_path):
    remedy = remedy_of(lambda: checkpoint.newest_finished(tmp_path))
    train(shlex.split(remedy.partition("accelerate launch train.py ")[2]))


def test_the_commands_and_files_of_other_messages_are_those_of_this_version(tmp_path, monkeypatch):
    command = re.search(r"`python infer.py ([^`]+)`", remedy_of(lambda: read_run(tmp_path / "a run")))
    assert command
    infer(shlex.split(command[1].replace("a run", "run")))
    _, _, _, verb, experiment, *_ = remedy_of(lambda: read_records(tmp_path)).split()
    assert verb in program.VERBS and read_experiment(PACKAGE.parent / experiment).row
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    configuration = re.search(r"accelerate_configs/\S+", remedy_of(start_accelerator))
    assert configuration and (PACKAGE.parent / configuration[0]).is_file()


# Every message

def messages() -> list[tuple[str, str]]:
    """(place, text) of every text of the package with an arrow; {} where a value stands."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.JoinedStr | ast.Constant):
                continue
            values = node.values if isinstance(node, ast.JoinedStr) else [node]
            text = "".join(value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else "{}"
                           for value in values)
            text = " ".join(text.split())
            if " -> " in text and id(node) not in parts | documents:
                found.append((f"{path.relative_to(PACKAGE)}:{node.lineno}", text))
    return found


KINDS = (TrainConfig, InferConfig)
VERBS = [getattr(verbs, function) for function, _ in program.VERBS.values()]


def flags_of(*kinds: Any) -> set[str]:
    """Every flag of some programs and verbs, in the guide's spelling too."""
    names = {*RULES, "Gaussiandrop"}

    def add(kind: Any) -> None:
        names.update(set(get_type_hints(kind)) - hidden(kind))
        for hint in get_type_hints(kind).values():
            if hasattr(hint, "__dataclass_fields__"):
                add(hint)
    for kind in kinds:
        add(kind)
    return names


def test_every_flag_and_verb_that_a_remedy_names_exists():
    every, core = flags_of(*KINDS, *VERBS), flags_of(*KINDS, verbs.prepare)
    tried = 0
    for place, text in messages():
        remedy = text.split(" -> ", 1)[1]
        wing = place.startswith(("doctor", "experiments", "priors", "report", "synthetic", "verbs"))
        for flag in re.findall(r"--([A-Za-z]\w*)", remedy):
            tried += 1
            assert flag.removeprefix("no_") in (every if wing else core), f"{place}: --{flag} in {text!r}"
        for verb in re.findall(r"python -m gazepose ([a-z_]+(?: [a-z_]+)?)", remedy):
            tried += 1
            assert verb in program.VERBS or verb.split()[0] in program.VERBS, f"{place}: {verb}"
        for extra in re.findall(r"gazepose\[(\w+)\]", remedy):
            assert f"\n{extra} = [" in (PACKAGE.parent / "pyproject.toml").read_text(), f"{place}: {extra}"
    assert tried > 80
