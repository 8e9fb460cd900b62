"""The launch configurations of the package: `--config_file NAME` of Accelerate's launcher, in place of a path."""

from collections.abc import Sequence
from pathlib import Path

from gazepose.errors import UsageError

CONFIGURATIONS = Path(__file__).resolve().parents[1] / "accelerate_configs"
OPTION = "--config_file"


def configurations() -> dict[str, str]:
    """Name -> what it starts, from the first line of the file."""
    return {file.stem: file.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            for file in sorted(CONFIGURATIONS.glob("*.yaml"))}


def with_paths(options: Sequence[str]) -> list[str]:
    """Options of `accelerate launch`; a name after --config_file becomes the path of that configuration.

    Raises:
        UsageError: it is neither a file nor a name.
    """
    words = [part for word in options for part in (word.split("=", 1) if word.startswith(f"{OPTION}=") else [word])]
    for number, word in enumerate(words[1:], 1):
        if words[number - 1] == OPTION and not Path(word).is_file():
            if word not in configurations():
                raise UsageError(f"{OPTION} {word}: neither a file nor a configuration of the package -> give a path, "
                                 f"or one of {', '.join(configurations())}")
            words[number] = str(CONFIGURATIONS / f"{word}.yaml")
    return words
