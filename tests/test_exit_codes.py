"""Exit codes: 2 for a command line that cannot be, 1 for other errors; each with its reason on standard error."""

import sys

import pytest

from gazepose import __main__ as program
from gazepose.errors import EXIT_USAGE, UsageError, readable_errors
from gazepose.watch.sources import name_sources


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """The exit code of a command line."""
    monkeypatch.setattr(sys, "argv", ["gazepose", *words])
    with pytest.raises(SystemExit) as end:
        program.main()
    return end.value.code


@pytest.mark.parametrize("verb", [*program.VERBS, "launch train"])
def test_every_verb_ends_with_2_at_an_unknown_flag(verb, monkeypatch, capsys):
    words = ["launch", "--no_such_flag", "train"] if verb == "launch train" else [*verb.split(), "--no_such_flag"]
    assert ended(monkeypatch, *words) == EXIT_USAGE == 2
    err = capsys.readouterr().err
    assert "no_such_flag" in err or "Missing argument" in err or "error: no verb -> add train, infer or" in err


@pytest.mark.parametrize(("words", "message"), [
    ("trian", "the verb 'trian' is unknown; did you mean train?"),
    ("priors poses", "the verb 'priors poses' is unknown"),
    ("--data d", "the verb '--data' is unknown"),
    ("train --epochs many", "many"), ("train --epochs 0", "--epochs 0 -> give 1"),
    ("train --val val", "is a flag of inference -> "),
    ("train --preset tiny --cache_features --freeze_backbone --flip", "--cache_features with --flip"),
    ("infer --split nope", "--split nope -> give val or test"),
    ("infer --eval --val", "contradict each other -> give one split"),
    ("prepare", "--split is missing -> give train"), ("prepare --video a.mp4", "-> give --video, --boxes and --out"),
    ("live 0 --every -1", "--every -1"), ("report", "-> name the runs"), ("chain", "-> name one or more run"),
    ("sweep a.toml --part x", "--part x -> give its number"), ("agree a b --match c",
     "-> give NAME_IN_MINE"),
    ("launch --num_processes 2", "no verb -> add train"), ("launch --config_file none train", "-> give a path, or"),
    ("completion csh", "csh"), ("watch --out o", "watch needs a video or a picture -> ")])
def test_what_cannot_be_written_ends_with_2_and_says_why(words, message, monkeypatch, capsys):
    assert ended(monkeypatch, *words.split()) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(("words", "message"), [
    ("doctor {}", "no such folder"), ("train --data {}", "no such folder"), ("train --config {}", "name a run, or its"),
    ("watch {}.mp4 --out {}", "no such video"), ("submit {}", "no such pred.csv"), ("report {}", "")])
def test_files_that_are_not_there_end_with_1(words, message, monkeypatch, tmp_path):
    code = ended(monkeypatch, *words.replace("{}", str(tmp_path / "none")).split())
    assert isinstance(code, str) and code.startswith("error: ") and message in code              # Python makes it 1


def test_a_usage_error_is_one_everywhere(capsys):
    with pytest.raises(SystemExit, match="^error: watch needs a video") as end, readable_errors():
        name_sources([], print)
    assert end.value.code == 2 and capsys.readouterr().err.startswith("error: watch needs")
    with pytest.raises(SystemExit) as end, readable_errors():
        raise ValueError("a file is damaged")
    assert end.value.code == "error: a file is damaged" and issubclass(UsageError, ValueError)
