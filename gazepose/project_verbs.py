"""The verbs of python -m gazepose that write files of the project itself, one function each, as in verbs.py."""

from pathlib import Path

from gazepose.config import Preset
from gazepose.source import EMBEDDED, Source, find_source


def fit_readout(data: Path | None = None, preset: Preset = "default", seed: int = 0,
                out: Path = Path("gazepose/watch/readout.json")) -> None:
    """Fit the landmark score of `watch`, which is part of the project, on an embedded world, or on another one.

    Args:
        data: folder of the world; default: data/embedded/PRESET-SEED.
        preset: which embedded world.
        seed: of the world.
        out: file to write.
    """
    from gazepose.processes import Processes
    from gazepose.watch.readout import fit_on_world
    source = find_source(data) if data else Source(EMBEDDED / f"{preset}-{seed}", preset, seed)
    if source.preset is None:
        raise ValueError(f"{data}: not an embedded world -> name one, or leave --data out")
    fit_on_world(source.ready(Processes()).root, out,
                 f"python -m gazepose fit_readout --preset {source.preset} --seed {source.seed}")


def write_start(run: Path, /, out: Path = Path("gazepose/weights"), command: str = "bash launch/pretrain.sh",
                low_pass: float = 0.0) -> None:
    """Write the start weights of trainings, which are part of the package, from a run of launch/pretrain.sh.

    Args:
        run: its folder.
        out: folder of start.safetensors and start.json.
        command: how the weights were made, for their card.
        low_pass: how much models that start from them smooth their crops: sigma of a Gaussian, in parts of a crop.
    """
    from gazepose.training.shipped_start import write_start
    card = write_start(run, command, out, low_pass)
    print(f"{card.name}, {card.figures} -> {out}")


def write_flags(page: Path = Path("docs/flags.md")) -> None:
    """Write the page of all flags from the code.

    Args:
        page: file of the page.
    """
    from gazepose.flags_page import flags_page
    page.write_text(flags_page(), encoding="utf-8")
    print(f"flags -> {page}")
