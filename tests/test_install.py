"""What pip installs: the wheel, the command in a folder of its own, launching by name, completion in a shell."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from gazepose.__main__ import VERBS
from gazepose.completion import script
from gazepose.errors import UsageError
from gazepose.experiments.plan import FILES, read_experiment
from gazepose.programs import launch
from gazepose.training.launcher import CONFIGURATIONS, with_paths

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
EVERY_HELP = """
import contextlib, io, sys
import gazepose
from gazepose.__main__ import VERBS, main
from gazepose.training.launcher import configurations
assert gazepose.__file__.startswith(sys.argv[1]), gazepose.__file__
for verb in VERBS:
    sys.argv, said = ["gazepose", *verb.split(), "--help"], io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main()
    assert "usage: gazepose" in said.getvalue(), (verb, said.getvalue())
print(len(VERBS), *configurations())
"""
COMPLETE = """
source ./completion
words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _gazepose; echo "${COMPREPLY[*]}"; }
words gazepose tra
words gazepose priors land
words gazepose train --batch
words gazepose train --decoder p
words gazepose watch --detector
words gazepose doctor some_fold
complete -p gazepose
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """Built from a copy, since setuptools leaves a folder build/ beside the sources."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "gazepose", copy / "gazepose", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-c", BUILD, "dist"], cwd=copy, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next((copy / "dist").glob("*.whl")))


def test_the_wheel_holds_every_file_of_the_package(wheel):
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gazepose").rglob("*")
            if path.is_file() and path.parent.name != "__pycache__"}
    assert ours - {*wheel.namelist()} == set()
    assert {name.split("/")[0].split("-")[0] for name in wheel.namelist()} == {"gazepose"}       # no tests, no build
    weights = sum(entry.file_size for entry in wheel.infolist() if entry.filename.endswith(".safetensors"))
    assert 0 < weights < 25e6 and sum(entry.file_size for entry in wheel.infolist()) < weights + 3e6


def test_the_wheel_says_what_it_is(wheel):
    (about,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    facts = wheel.read(about).decode().partition("\n\n")[0]
    for line in ("Name: gazepose", "License-Expression: MIT", "Author: The gazepose authors", "Typing :: Typed",
                 "Provides-Extra: watch", "Requires-Dist: torch", "Description-Content-Type: text/markdown"):
        assert line in facts, line
    entry = wheel.read(about.replace("METADATA", "entry_points.txt")).decode()
    assert entry == "[console_scripts]\ngazepose = gazepose.__main__:main\n"


def test_the_page_of_the_installation_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = (ROOT / "docs" / "install.md").read_text().splitlines()
    named = " ".join(line.split("|")[2] for line in lines if line.count("|") == 4)
    assert [extra for extra in extras if f"`{extra}`" not in named] == []


def test_every_verb_of_the_unpacked_wheel_shows_its_help(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    done = subprocess.run([sys.executable, "-c", EVERY_HELP, str(tmp_path / "site")], cwd=tmp_path, timeout=120,
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(VERBS)), *sorted(path.stem for path in CONFIGURATIONS.glob("*.yaml"))]


def test_a_name_or_a_file_is_a_launch_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gpu4 = str(CONFIGURATIONS / "gpu4.yaml")
    assert with_paths(["--config_file", "gpu4", "--cpu", "train"]) == ["--config_file", gpu4, "--cpu", "train"]
    assert with_paths(["--config_file=gpu4"]) == ["--config_file", gpu4]
    Path("mine.yaml").touch()
    assert with_paths(["--config_file", "mine.yaml"]) == ["--config_file", "mine.yaml"]
    with pytest.raises(ValueError, match=r"--config_file gpu5: neither a file nor .* one of cpu, cpu2, gpu1"):
        with_paths(["--config_file", "gpu5"])


def test_launch_gives_its_options_to_accelerate_and_the_rest_to_the_verb(monkeypatch, capsys):
    given = []
    monkeypatch.setattr("accelerate.commands.launch.launch_command", given.append)
    launch(["--config_file", "cpu2", "--num_processes", "3", "train", "--epochs", "2", "--seed", "train"])
    launch(["prepare", "--split", "val"])
    train, prepare = given
    assert train.config_file == str(CONFIGURATIONS / "cpu2.yaml") and train.num_processes == 3 and train.module
    assert (train.training_script, train.training_script_args) == (
        "gazepose.train", ["--epochs", "2", "--seed", "train"])
    assert (prepare.training_script, prepare.training_script_args) == ("gazepose", ["prepare", "--split", "val"])
    with pytest.raises(UsageError, match="no verb -> add train, infer or prepare"):
        launch(["--config_file", "cpu2"])
    assert "machines2_cpu" in capsys.readouterr().out


def test_an_experiment_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_experiment(Path("modules")) == read_experiment(FILES / "modules.toml")
    with pytest.raises(FileNotFoundError, match=r"modle: no such experiment file -> .* one of backbones, .*modules"):
        read_experiment(Path("modle"))


def test_bash_completes_verbs_flags_choices_and_files(tmp_path):
    (tmp_path / "completion").write_text(script("bash"))
    done = subprocess.run(["bash", "-c", COMPLETE], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["train", "landmarks", "--batch_size", "pyav", "--detector_size", "",
                                        "complete -o default -F _gazepose gazepose"], done.stderr


@pytest.mark.parametrize(("shell", "check"), [("zsh", "zsh -n"), ("fish", "fish -n")])
def test_the_completion_of_other_shells_can_be_read(shell, check, tmp_path):
    (tmp_path / "completion").write_text(script(shell))
    assert "pose_from_landmarks" in (tmp_path / "completion").read_text()
    if shutil.which(shell):
        subprocess.run([*check.split(), "completion"], cwd=tmp_path, check=True, timeout=60)


@pytest.mark.parametrize(("uv", "cpu", "words"), [
    (True, "1", "--torch-backend cpu"), (True, "", None),
    (False, "1", "--extra-index-url https://download.pytorch.org/whl/cpu"), (False, "", None)])
def test_the_environment_for_cpus_asks_for_torch_without_cuda(uv, cpu, words, tmp_path):
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    for name in ("pyproject.toml", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    record = '#!/bin/sh\necho "$@" >> "$CALLS"\n'
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(record + 'case "$*" in *"pip install --quiet uv"*) exit 1;; esac\n')
    python.chmod(0o755)
    (tmp_path / "bin").mkdir()
    if uv:
        (tmp_path / "bin" / "uv").write_text(record)
        (tmp_path / "bin" / "uv").chmod(0o755)
    done = subprocess.run(["bash", "-c", ". launch/environment.sh", "submit.sh", "runs/mine"], cwd=tmp_path, env={
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls"), "CPU": cpu,
        "PYTHON": sys.executable}, timeout=30, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    installed = (tmp_path / "calls").read_text().splitlines()[-1]
    assert "-c constraints.txt" in installed and "runs/mine" not in installed      # the arguments of the calling script
    assert words in installed if words else "cpu" not in installed
