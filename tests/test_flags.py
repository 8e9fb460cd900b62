"""Flags: what --help shows reaches the configuration or is refused, and docs/flags.md is what the code says."""

import dataclasses
import os
import platform
import re
import subprocess
import sys
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gazepose import processes, programs, train
from gazepose.__main__ import VERBS
from gazepose.compat.flags import GuideInference
from gazepose.config import (
    DataConfig,
    InferConfig,
    ModelFlags,
    NotAFlag,
    TrainConfig,
    check_priors,
    parse,
    parse_train,
    train_defaults,
)
from gazepose.flags_page import flags_page
from gazepose.machine import has_gpu, let_waiting_threads_sleep
from gazepose.models import ModelConfig
from gazepose.source import Source

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = [field.name for field in dataclasses.fields(TrainConfig)]
GUIDE_ONLY = {"mesh", "test_stride"}                     # of training: inference takes --stride
NEEDS = {"resume": ["--exp_path", "run"],
         "cache_features": ["--freeze_backbone", "--no_flip", "--no_random_crop"]}
VALUES: dict[str, tuple[list[str], Any]] = {
    "rule": (["max_gap=3"], ("max_gap=3",)), "weights": (["0.2", "0.8"], (0.2, 0.8)), "data": (["."], Path(".")),
    "ema": (["0.9"], 0.9),
    "backbone": (["resnet34"], "resnet34"), "dmodel": (["128"], 128), "nheads": (["4"], 4),
    "output_stride": (["8"], 8), "csplit": (["0.5"], 0.5), "max_bad_fraction": (["0.5"], 0.5),
    "processes": (["3"], "3"), "save_every": (["500,5min"], "500,5min")}


def hidden(kind: type) -> set[str]:
    """Fields of a section that are no flags."""
    hints = typing.get_type_hints(kind, include_extras=True)
    marks = set(typing.get_args(NotAFlag[int])[1:])
    return {name for name, hint in hints.items() if marks <= set(getattr(hint, "__metadata__", ()))}


def flags_of(section: str) -> list[dataclasses.Field]:
    part = getattr(TrainConfig(), section)
    return [field for field in dataclasses.fields(part) if field.name not in hidden(type(part))]


ALL_FLAGS = [(section, field.name) for section in SECTIONS for field in flags_of(section)]
NEEDS_A_RUN = ("run", "config")                          # test_run_identity


def other_value(name: str, default: Any, hint: Any) -> tuple[list[str], Any]:
    """Arguments, and the value they mean, that differ from a default."""
    if name in VALUES:
        return VALUES[name]
    choices = [choice for part in (hint, *typing.get_args(hint)) for choice in typing.get_args(part)
               if isinstance(choice, str)]
    if choices:
        choice = next(choice for choice in choices if choice != default)
        return [choice], choice
    if isinstance(default, int | float):
        return [str(default + 1)], default + 1
    kinds = typing.get_args(hint)
    kind = next((kind for kind in (int, float, Path) if kind in kinds), int)
    return ["7"], kind("7")


@pytest.mark.parametrize("section, name", [flag for flag in ALL_FLAGS if flag != NEEDS_A_RUN])
def test_a_flag_of_training_reaches_the_configuration(section: str, name: str):
    extra = NEEDS.get(name, [])
    before, _ = parse_train(extra)
    default = getattr(getattr(before, section), name)
    if isinstance(default, bool):
        arguments, expected = [f"--{'no_' if default else ''}{name}"], not default
    else:
        values, expected = other_value(name, default, typing.get_type_hints(type(getattr(before, section)))[name])
        arguments = [f"--{name}", *values]
    config, _ = parse_train([*extra, *arguments])
    assert getattr(getattr(config, section), name) == expected


SWITCHES = [(section, field.name) for section in SECTIONS for field in flags_of(section)
            if isinstance(field.default, bool) and section != "guide" and field.name not in NEEDS]


def test_a_flag_that_a_config_switched_on_can_be_switched_off():
    on = TrainConfig(**{section: dataclasses.replace(getattr(TrainConfig(), section), **{
        name: True for part, name in SWITCHES if part == section}) for section in SECTIONS})
    off = parse(TrainConfig, [f"--no_{name}" for _, name in SWITCHES], on)
    assert len(SWITCHES) >= 8 and not any(getattr(getattr(off, part), name) for part, name in SWITCHES)


@pytest.mark.parametrize("name", ["gaussian_drop", "allow_unknown_priors", "cache_features"])
def test_inference_is_as_the_training_until_a_flag_says_otherwise(name):
    assert [getattr(parse(InferConfig, flags), name) for flags in ([], [f"--{name}"], [f"--no_{name}"])] == [
        None, True, False]
    drop = [InferConfig(gaussian_drop=given).windows(DataConfig(gaussian_drop=trained)).gaussian_drop
            for given, trained in ((None, True), (None, False), (True, False), (False, True))]
    assert drop == [True, False, True, False]


@pytest.mark.parametrize("name", sorted(hidden(ModelFlags) | {"warmup", "schedule", "weight_decay", "backbone_lr"}))
def test_a_derived_setting_is_no_flag(name: str, capsys):
    with pytest.raises(SystemExit):
        parse_train([f"--{name}", "1"])
    assert f"--{name}" in "".join(capsys.readouterr())


def test_there_are_few_flags():
    own = [name for _, name in ALL_FLAGS if name not in GUIDE_ONLY]
    assert len(own) <= 60
    assert len(dataclasses.fields(InferConfig)) - 1 <= 28 and len(dataclasses.fields(GuideInference)) == 16


def test_a_help_text_that_names_a_default_names_the_one_that_holds():
    text = flags_page().split("## python -m gazepose infer")[0]
    for stated, default in re.findall(r"default:? (\d[\d.]*)[^()]*\(default: ([^)]+)\)", text):
        assert default == "None" or float(stated.rstrip(".")) == float(default)


def test_the_page_of_flags_is_what_the_command_makes():
    page = flags_page()
    assert (ROOT / "docs" / "flags.md").read_text() == page, "run python -m gazepose flags"
    of_users = page.partition("## python -m gazepose write_start")[0]
    assert not re.search(r"\b(train|infer)\.py|launch/", of_users)      # an installed package has no such files


def test_a_prior_that_the_data_lacks_is_refused_with_the_command(index_of):
    rows = np.arange(5)
    without = index_of([range(5)])
    for flag, column in (("prior_head", "head_pose"), ("prior_landmark", "landmarks")):
        for model in ("GazePose", "GazeLSTM"):
            config = ModelConfig(model=model, **{flag: True})
            with pytest.raises(ValueError, match=f"--{flag}: .* -> import it with `python -m gazepose priors import "
                                                 f"{column} FILE --data .*`, or add --allow_unknown_priors"):
                check_priors(config, without, rows, False)
            check_priors(config, without, rows, True)
    known = index_of([range(5)], head_pose=[[0.0, 0.0, 0.0]] + [[np.nan] * 3] * 4)
    check_priors(ModelConfig(prior_head=True), known, rows, False)


@pytest.mark.parametrize("preset, line", [
    ("tiny", "start: random weights; for a better start, train with --task gaze first"),
    (None, "start: WARNING: random weights, because this machine has no ImageNet weights of resnet18. Such a model")])
def test_random_weights_say_what_to_do_on_this_data(preset, line, monkeypatch, tmp_path):
    monkeypatch.setattr(train, "start_from_imagenet", lambda model, backbone, fetch: None)
    lines: list[str] = []
    accelerator: Any = SimpleNamespace(print=lines.append, is_main_process=True)
    config = train_defaults(TrainConfig(), embedded=preset is not None, gpu=False)
    train.initial_weights(None, config, Source(tmp_path, preset), tmp_path, accelerator)   # type: ignore[arg-type]
    assert lines[0].startswith(line)


HEAVY = ("torch", "accelerate", "timm", "torchvision", "pandas", "cv2", "numba", "scipy", "sklearn", "matplotlib", "av",
         "decord", "ai_edge_litert", "jinja2")
SHOW_HELP = """
import contextlib, io, sys
{first}
for words in {commands}:
    sys.argv, said = words, io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        {call}
    assert "usage: " in said.getvalue(), said.getvalue()
    heavy = [name for name in {heavy} if name in sys.modules]
    assert not heavy and len(sys.modules) < {most}, (words, heavy, len(sys.modules))
"""


def shows_help(folder, first, call, commands, most):
    code = SHOW_HELP.format(first=first, call=call, commands=commands, heavy=HEAVY, most=most)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert not done.returncode, done.stderr


def test_one_process_prepares_without_torch(tmp_path):
    code = ("import sys, gazepose.data.prepare, gazepose.data.streaming\nfrom gazepose.__main__ import main\n"
            "sys.argv = 'gazepose prepare --split val --data none'.split()\n"
            "try:\n    main()\nexcept SystemExit as end:\n    print(end, 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert "none: no such folder ->" in done.stdout and done.stdout.endswith(" False\n"), done


@pytest.mark.parametrize(("name", "events"), [("train", ["workers", "gazepose.train"]), ("infer", ["gazepose.infer"])])
def test_a_program_speaks_and_starts_its_workers_before_its_slow_imports(name, events, tmp_path, monkeypatch, capsys):
    seen = []
    chosen = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name not in chosen})
    def slow(module):
        seen.append(module)
        assert os.environ["GOMP_SPINCOUNT"] == "300"
        assert capsys.readouterr().err == f"{name}: starting; importing torch takes some seconds\n"
        return SimpleNamespace(main=lambda given: None)
    monkeypatch.setattr(programs, "end_at_interrupt", lambda name: None)
    monkeypatch.setattr(programs.importlib, "import_module", slow)
    monkeypatch.setattr(processes, "shield_workers", lambda: seen.append("workers"))
    programs.program(name, ["--num_workers", "2"])
    assert seen == events


@pytest.mark.parametrize(("given", "found"), [
    ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "300"}),
    ({"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "7"}),
    ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"})])
def test_how_threads_wait_is_the_choice_of_whoever_starts_the_program(given, found, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(given))
    let_waiting_threads_sleep()
    assert os.environ == found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_a_training_keeps_the_memory_that_it_frees():
    code = "import resource, sys\nimport numpy\nfrom gazepose import programs\nprograms.importlib.import_module = " \
           "lambda name: type('', (), {'main': lambda given: None})\nprograms.program(sys.argv[1], [])\n" \
           "for n in range(3):\n before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n" \
           " numpy.empty(100 << 20, numpy.uint8).fill(1)\n" \
           "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    cleared = {name: int(subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, timeout=60,
                                        check=True).stdout) for name in ("train", "infer")}
    assert cleared["train"] < 10 < cleared["infer"]


@pytest.mark.skipif(has_gpu(), reason="the defaults depend on the GPU, so torch is asked where a driver is")
def test_the_help_of_every_verb_imports_nothing_heavy(tmp_path):
    (tmp_path / "data" / "json").mkdir(parents=True)
    (tmp_path / "data" / "json" / "av_train.json").write_text("{}")               # Ego4D: no world is imported either
    main = "from gazepose.__main__ import main"
    shows_help(tmp_path, main, "main()", [["gazepose"], ["gazepose", "--help"]], 250)
    shows_help(tmp_path, main, "main()", [["gazepose", *verb.split(), "--help"] for verb in VERBS], 700)
    for program in ("train", "infer"):
        for start in (f"runpy.run_path({str(ROOT / f'{program}.py')!r}, run_name='__main__')",
                      f"runpy.run_module('gazepose.{program}', run_name='__main__')"):
            shows_help(tmp_path, "import runpy", start, [[f"{program}.py", "--help"]], 700)


def test_a_wrong_flag_of_training_ends_before_torch_is_imported():
    code = "import sys; sys.argv = ['train.py', '--epoch', '3']\nfrom gazepose.programs import program\n" \
           "try: program('train')\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout == "False\n" and "--epochs" in done.stderr
