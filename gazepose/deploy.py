"""Export: the model of a run as ONNX or torch.export files that need nothing of this package. docs/export.md has the
inputs and the rules of crop, box and window, which are also inside the files.

Three graphs: `model` scores windows of crops. `maps` and `head` are its two halves: a live program computes the map of
a crop once, and shows it to seven windows.
"""

import json
import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import gazepose
from gazepose.data.crops import HEIGHT, LEFT, TOP, WIDTH
from gazepose.data.shards import QUALITY, SUBSAMPLING
from gazepose.io import write_arrays, write_json, writing_folder
from gazepose.machine import needed
from gazepose.models import Priors
from gazepose.training.augment import MEAN, STD
from gazepose.training.scoring import APART, RunModel
from gazepose.watch.codable import LEAST_HEIGHT

Format = Literal["onnx", "torch"]
SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
TOLERANCE = 1e-5             # largest difference of a probability, or of a map in units of its largest number
SIZES = ((5, 3), (1, 1), (4, 9))
"""(crops, windows) with which files are compared; the first are stored"""
MOST = 1 << 16               # crops, and windows, of a call
FACTS, CHECK = "export.json", "check.npz"
OUTPUT = {"model": "probability", "maps": "maps", "head": "probability"}
"""graph -> its output"""
Arrays = dict[str, np.ndarray]


class Maps(nn.Module):
    """Crops, uint8 [F, S, S, 3] RGB -> the backbone's maps, float32 [F, C, h, w]."""

    mean: Tensor
    scale: Tensor

    def __init__(self, run: RunModel) -> None:
        super().__init__()
        self.frames = run.model.frames
        # as augment.normalise, whose cached constants must not be made while a graph is traced
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255)
        self.register_buffer("scale", 1 / (torch.tensor(STD).view(1, 3, 1, 1) * 255))

    def forward(self, crops: Tensor) -> Tensor:
        return self.frames.maps_of((crops.permute(0, 3, 1, 2).float() - self.mean) * self.scale)


class Head(nn.Module):
    """Maps [F, C, h, w] and windows, int64 [B, T] -> probability of looking, float32 [B]. Priors as models.Priors has
    them; a prior that the run does not query is no input."""

    def __init__(self, run: RunModel) -> None:
        super().__init__()
        self.model = run.model

    def forward(self, maps: Tensor, window: Tensor, head_pose: Tensor | None = None, landmarks: Tensor | None = None
                ) -> Tensor:
        faces = window.shape[0]
        priors = Priors(maps.new_zeros(faces, 3) if head_pose is None else head_pose,
                        maps.new_zeros(faces, 5, 3) if landmarks is None else landmarks)
        return torch.softmax(self.model(maps, window, priors).logits, dim=1)[:, 1]


class Whole(nn.Module):
    """Crops and windows -> probability of looking: Maps, then Head."""

    def __init__(self, run: RunModel) -> None:
        super().__init__()
        self.maps, self.head = Maps(run), Head(run)

    def forward(self, crops: Tensor, window: Tensor, head_pose: Tensor | None = None, landmarks: Tensor | None = None
                ) -> Tensor:
        return self.head(self.maps(crops), window, head_pose, landmarks)


def priors_of(run: RunModel) -> list[str]:
    """Names of the priors that a run queries, in the order of the inputs."""
    if run.network.model != "GazePose":
        return []
    asked = {"head_pose": run.network.prior_head, "landmarks": run.network.prior_landmark}
    return [name for name, queried in asked.items() if queried]


def example_of(run: RunModel, crops: int, windows: int) -> Arrays:
    """Random crops, windows and priors of a fixed seed; some priors are unknown."""
    draw, side = np.random.default_rng(crops), run.crop_size
    pose, points = draw.normal(0, 30, (windows, 3)), draw.uniform(0, 1, (windows, 5, 3))
    pose[0], points[-1], points[0, 1] = np.nan, np.nan, np.nan
    priors = {"head_pose": pose.astype(np.float32), "landmarks": points.astype(np.float32)}
    return {"crops": draw.integers(0, 256, (crops, side, side, 3), np.uint8),
            "window": draw.integers(0, crops, (windows, 2 * run.network.reach + 1)),
            **{name: priors[name] for name in priors_of(run)}}


def expected_of(run: RunModel, example: Arrays) -> Arrays:
    """What the package itself says of an example: {"maps", "probability"}."""
    maps, faces = run.maps(example["crops"]), len(example["window"])
    unknown = np.full((faces, 3), np.nan), np.full((faces, 5, 3), np.nan)
    probability = run.probabilities(maps, example["window"], example.get("head_pose", unknown[0]),
                                    example.get("landmarks", unknown[1]))
    return {"maps": maps.numpy(), "probability": probability}


def facts_of(run: RunModel, source: Path) -> dict[str, Any]:
    """What a program must know to make the inputs, as JSON."""
    quality = None
    if run.quality_fit is not None:
        quality = {"scale": run.quality_scale, "mean": run.quality_fit[0], "std": run.quality_fit[1]}
    return {
        "gazepose": gazepose.__version__, "model": run.network.model, "backbone": run.network.backbone,
        "learnt_from": str(run.learnt_from), "exported_from": source.as_posix(),
        "crop": {"size": run.crop_size, "colours": "RGB", "box_scale": run.box_scale,
                 "jpeg": {"quality": QUALITY, "subsampling": SUBSAMPLING},
                 "rule": "Cut the box at whole pixels (truncated), clipped at the border. Resize it to size x size: by "
                         "area if both sides shrink and the size is not 224, else bilinearly. Compress it as JPEG."},
        "box": {"left": LEFT, "top": TOP, "width": WIDTH, "height": HEIGHT, "least_height": LEAST_HEIGHT,
                "rule": "Of a YuNet box x, y, w, h: x + left * w, y + top * h, width * w, height * h; then grown "
                        "about its centre by box_scale. A face lower than least_height gets no score, unless its cut "
                        "box is as high as the lowest of the training (least_height of the run)."},
        "window": {"frames": 2 * run.network.reach + 1, "seconds_apart": APART,
                   "rule": "Crops of one face at these times around the middle one, which is scored. Missing ones are "
                           "closed up towards the middle: the outermost that is there is repeated, or the middle."},
        "priors": priors_of(run), "quality_dropout": quality,
        "least_height": None if np.isinf(run.least_height) else run.least_height}


# ---- files

@contextmanager
def quietly() -> Any:
    """Without the exporter's own notes and warnings, which no user can act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def traced(module: nn.Module, inputs: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    """A graph of a module for any number of crops and of windows."""
    crops, windows = (torch.export.Dim(name, min=1, max=MOST) for name in ("crops", "windows"))
    shapes = {name: {0: crops if name in ("crops", "maps") else windows} for name in inputs}
    with torch.no_grad():
        return torch.export.export(module.eval(), (), kwargs=dict(inputs), dynamic_shapes=shapes)


def programs_of(run: RunModel, names: tuple[str, ...]) -> dict[str, torch.export.ExportedProgram]:
    """The graphs of a run by name."""
    example = example_of(run, *SIZES[0])
    inputs = {name: torch.from_numpy(value) for name, value in example.items()}
    inputs["maps"] = run.maps(example["crops"]).clone()                # the trace refuses a tensor of inference mode
    modules = {"model": Whole, "maps": Maps, "head": Head}
    takes = {"model": ("crops", "window", *priors_of(run)), "maps": ("crops",),
             "head": ("maps", "window", *priors_of(run))}
    return {name: traced(modules[name](run), {key: inputs[key] for key in takes[name]}) for name in names}


def write_onnx(run: RunModel, folder: Path, facts: Mapping[str, Any]) -> None:
    """model.onnx, maps.onnx and head.onnx, with the facts in their metadata."""
    onnx, graphs = needed("onnx", "export"), {}
    for name in ("onnxscript", "onnxruntime"):
        needed(name, "export")
    for name, program in programs_of(run, ("maps", "head")).items():
        made = torch.onnx.export(program, dynamo=True, output_names=[OUTPUT[name]], verbose=False)
        graphs[name] = made.model_proto                                                 # type: ignore[union-attr]
    # its names of weights may be those of the head
    first = onnx.compose.add_prefix(graphs["maps"], "maps/", rename_inputs=False, rename_outputs=False)
    graphs["model"] = onnx.compose.merge_models(first, graphs["head"], io_map=[("maps", "maps")])
    for name, graph in graphs.items():
        del graph.metadata_props[:]
        onnx.helper.set_model_props(graph, {"gazepose": json.dumps(facts)})
        onnx.checker.check_model(graph)
        onnx.save(graph, folder / f"{name}.onnx")


def write_torch(run: RunModel, folder: Path, facts: Mapping[str, Any]) -> None:
    """model.pt2, maps.pt2 and head.pt2, with the facts beside the graph."""
    for name, program in programs_of(run, tuple(OUTPUT)).items():
        torch.export.save(program, folder / f"{name}.pt2", extra_files={"gazepose.json": json.dumps(facts)})


def open_onnx(path: Path) -> Callable[[Arrays], np.ndarray]:
    """A function from the inputs of an ONNX file to its output, on the CPU."""
    session = needed("onnxruntime", "export").InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    return lambda inputs: session.run(None, {name: inputs[name] for name in names})[0]


def open_torch(path: Path) -> Callable[[Arrays], np.ndarray]:
    """As `open_onnx`, of a file of torch.export."""
    program = torch.export.load(path)
    names, module = program.graph_signature.user_inputs, program.module()

    @torch.no_grad()
    def call(inputs: Arrays) -> np.ndarray:
        return module(**{str(name): torch.from_numpy(inputs[str(name)]) for name in names}).numpy()
    return call


WRITE = {"onnx": write_onnx, "torch": write_torch}
OPEN = {"onnx": open_onnx, "torch": open_torch}


def difference(files: Mapping[str, Callable[[Arrays], np.ndarray]], example: Arrays, expected: Arrays) -> float:
    """Largest difference of the three files from the package; NaN if they do not agree on what is a number."""
    maps = files["maps"](example)
    found = {"model": files["model"](example), "maps": maps, "head": files["head"]({**example, "maps": maps})}
    return float(np.max([np.abs(value - expected[OUTPUT[name]]).max() / max(1.0, np.abs(expected[OUTPUT[name]]).max())
                         for name, value in found.items()]))


@dataclass(frozen=True)
class Exported:
    """A folder of exported files."""

    folder: Path
    difference: float
    """largest difference from the package, over all SIZES"""


def export(source: Path, to: Format, folder: Path) -> Exported:
    """Write the graphs of a run, and compare what each file says with what the package says.

    Args:
        source: as RunModel.read takes it, and raises as that.
        folder: made whole or not at all; must not exist.

    Raises:
        FileExistsError: the folder is there. ImportError: a package of the extra `export` is missing.
        ValueError: a file differs from the package by more than TOLERANCE; nothing is written.
    """
    if folder.exists():
        raise FileExistsError(f"{folder}: is there already -> delete it, or give another --out")
    run = RunModel.read(source)
    examples = [example_of(run, *size) for size in SIZES]
    expected = [expected_of(run, example) for example in examples]
    facts = facts_of(run, source)
    facts["check"] = {"file": CHECK, "probability": expected[0]["probability"].tolist(), "tolerance": TOLERANCE}
    with writing_folder(folder) as part, quietly():
        WRITE[to](run, part, facts)
        files = {name: OPEN[to](part / f"{name}{SUFFIX[to]}") for name in OUTPUT}
        worst = float(np.max([difference(files, *pair) for pair in zip(examples, expected, strict=True)]))
        if not worst <= TOLERANCE:
            other = "torch" if to == "onnx" else "onnx"
            raise ValueError(f"{source}: the {to} files differ from the package by {worst:.2g}, more than "
                             f"{TOLERANCE:g}; nothing was written -> use --to {other}, or other versions of torch and "
                             "onnxruntime")
        write_arrays(part / CHECK, {**examples[0], **expected[0]})
        write_json(part / FACTS, {**facts, "difference": worst})
    return Exported(folder, worst)
