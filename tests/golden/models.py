"""models.json: nine published models in float32 and float64, their weights' names, and what lies between.

Not compared: `float32_vs_float64` and `float32_vs_float64_relative`, the rounding of the recording itself; and
`mesh` in a config, without which the original does not run.
"""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gazepose.models import Priors
from gazepose.models.transformer import sine_positions
from golden import Result, apart, read, rules, same, some

FLOAT32, FLOAT64, BETWEEN = 2e-5, 1e-9, 5e-5                              # the last relative to the largest value
OPTIONS = {"encoder_layers": "num_encoder_layers", "decoder_layers": "num_decoder_layers", "ffn": "dim_feedforward",
           "heads": "nheads"}                                             # recorded name -> ours, where they differ
PARTS = {"lstm_centre": "lstm", "input_proj": "input_proj", "encoder_memory": "transformer.encoder",
         "hs": "transformer", "fusion": "fusion_layer", "combine": "combine_layer", "last_layer1": "last_layer.0",
         "layer4_centre": "frames", "fc1_before_relu_centre": "frames.to_vector.0",
         "frame_features": "frames.to_vector"}


def check(folder: Path) -> Iterator[Result]:
    """`what` begins with the line it belongs to: "NAME float32: ..." or "fill and inputs: ..."."""
    recorded = read(folder / "models.json")
    yield from check_rules(recorded)
    for name in some("models", recorded["models"]):
        try:
            yield from check_model(recorded, name)
        except Exception as error:                                        # the other models are still checked
            yield Result(f"{name} stopped: {type(error).__name__}: {error}", math.inf, 0)


def check_rules(recorded: dict) -> Iterator[Result]:
    """The rules rebuild the recorded weights and clips byte by byte."""
    salt, inputs = recorded["fill"]["salt"], recorded["inputs"]
    crc = {}
    for name in recorded["models"]:
        for key, shape, dtype in rules.entries_of(recorded, name):
            label = f"{key}|{'x'.join(map(str, shape)) or 'scalar'}"
            if label not in crc:
                crc[label] = zlib.crc32(rules.filled(salt, key, shape, dtype).numpy().tobytes())
    expected = {label: recorded["fill"]["checks"].get(label) for label in some("state", crc)}
    yield Result("fill and inputs: weights", same(crc, expected), 0)
    for name, stats in some("inputs.clip_checks", inputs["clip_checks"]).items():
        clip = rules.clip(inputs["clip_labels"][name], inputs["batch"], inputs["frames"])
        numbers = {key: value for key, value in stats.items() if key != "crc32_float32_le"}
        yield Result(f"fill and inputs: {name}", same(zlib.crc32(clip.numpy().tobytes()), stats["crc32_float32_le"]), 0)
        yield Result(f"fill and inputs: {name} in numbers", agreement(clip, numbers), BETWEEN)


def check_model(recorded: dict, name: str) -> Iterator[Result]:
    """One model: its file is recognised, and every case gives the recorded numbers in both precisions."""
    model, config = rules.build(recorded, name)
    with torch.inference_mode(), rules.published_landmarks():
        for what, difference in [*recognition(recorded, name, model), *rows(recorded, name, model, config.split)]:
            yield Result(f"{name} float32: {what}", difference, 0)
        cases = some(f"{name}: cases", recorded["models"][name]["cases"])
        clips = list(dict.fromkeys(case["clip"] for case in cases.values()))
        parts: dict[str, Tensor] = {}
        hooks = [model.get_submodule(path).register_forward_hook(keep(parts, part)) for part, path in PARTS.items()
                 if path in dict(model.named_modules())]
        for what, difference in outputs(recorded, model, config.split, cases, clips, ""):
            yield Result(f"{name} float32: {what}", difference, FLOAT32)
        for number, (case_name, case) in enumerate(cases.items()):
            if "checks" in case:
                place = clips.index(case["clip"])
                values = between(recorded, parts, number, place, len(cases), config.dmodel)
                for what, difference in compare(values, case["checks"]):
                    yield Result(f"{name} float32: {case_name}: {what}", difference, BETWEEN)
        for hook in hooks:
            hook.remove()
        for what, difference in outputs(recorded, model.double(), config.split, cases, clips, "_float64"):
            yield Result(f"{name} float64: {what}", difference, FLOAT64)


def keep(parts: dict[str, Tensor], part: str) -> Any:
    """A hook that keeps what a module returns, of a pair its first."""
    return lambda module, module_inputs, out: parts.__setitem__(part, out[0] if isinstance(out, tuple) else out)


def recognition(recorded: dict, name: str, model: Any) -> Iterator[tuple[str, float]]:
    """The published file is taken whole, and its options are found from its shapes."""
    entry, entries = recorded["models"][name], rules.entries_of(recorded, name)
    ours = rules.recognise(recorded["fill"]["salt"], entries)
    yield "state entries", same((ours.taken, ours.left), (entry["state_entries"], []))
    yield "weights as read from a file", same(ours.alike, True)
    theirs = rules.names(entries, ours.kind)
    parameters = [value for key, value in model.named_parameters() if key in theirs]
    yield "parameters", same((len(parameters), sum(value.numel() for value in parameters)),
                             (entry["parameter_tensors"], entry["parameters"]))
    config: dict[str, Any] = {key: value for key, value in entry.get("config", {}).items() if key != "mesh"}
    yield "config", same({key: getattr(ours.config, OPTIONS.get(key, key)) for key in config}, config)


def rows(recorded: dict, name: str, model: Any, split: float) -> Iterator[tuple[str, float]]:
    """Table rows of the landmarks; what is unknown has the rows of what the published code took it for."""
    for case_name, case in recorded["models"][name]["cases"].items():
        head_pose, landmarks = rules.priors(recorded, case, split)
        if "joint_index" in case:
            expected = [case["joint_index"], case["confidence_index"]]
            ours = model.landmark_queries.rows(landmarks)
            yield f"{case_name}: landmark rows", same([r.tolist() for r in ours], expected)
            if not landmarks.any():
                unknown = model.landmark_queries.rows(torch.full_like(landmarks, torch.nan))
                yield f"{case_name}: rows of unknown landmarks", same([r.tolist() for r in unknown], expected)
        if hasattr(getattr(model, "head_queries", None), "rows"):
            bins = torch.tensor(recorded["inputs"][f"head_bins_split{split:g}"][case["head_bins"]])
            yield f"{case_name}: head bins", same(model.head_queries.rows(head_pose).tolist(), bins.tolist())
            if (bins == int(90 / split)).all():                           # a missing pose counts as 90 degrees
                unknown = model.head_queries.rows(torch.full_like(head_pose, torch.nan))
                yield f"{case_name}: rows of an unknown head pose", same(unknown.tolist(), bins.tolist())


def outputs(recorded: dict, model: Any, split: float, cases: dict[str, dict], clips: list[str],
            precision: str) -> Iterator[tuple[str, float]]:
    """All cases in one batch, and how far each is from the record."""
    pool = rules.pool_of(recorded, model, clips)
    window = torch.cat([rules.windows(recorded, clips.index(case["clip"])) for case in cases.values()])
    priors = zip(*(rules.priors(recorded, case, split) for case in cases.values()), strict=True)
    prediction = model(pool, window, Priors(*map(torch.cat, priors)))
    for number, (name, case) in enumerate(cases.items()):
        samples = slice(number * recorded["inputs"]["batch"], (number + 1) * recorded["inputs"]["batch"])
        if "angular" in case:                                             # Gaze360: two angles, and the spread twice
            yield f"{name}: angles", apart(prediction.gaze[samples, :2], case["angular" + precision])
            yield f"{name}: spread", apart(prediction.gaze[samples, [2, 2]], case["var" + precision])
        else:
            yield f"{name}: logits", apart(prediction.logits[samples], case["logits" + precision])
            yield f"{name}: scores", apart(prediction.logits[samples].softmax(1), case["scores" + precision])


def between(recorded: dict, parts: dict[str, Tensor], number: int, place: int, cases: int, width: int
            ) -> dict[str, Tensor]:
    """What the modules gave for one case, [B, ...] by recorded name."""
    batch, frames = recorded["inputs"]["batch"], recorded["inputs"]["frames"]
    values = {}
    for part, value in parts.items():
        if part in ("layer4_centre", "fc1_before_relu_centre", "frame_features"):  # one per frame of the pool
            value = value[place * batch * frames:(place + 1) * batch * frames].unflatten(0, (batch, frames))
        else:
            value = value.unflatten(0, (cases, batch))[number]
        values[part] = value if "centre" not in part else value[:, frames // 2]
    values["pooled_centre"] = values["layer4_centre"].mean(dim=(-2, -1))
    if "hs" in values:
        values["hs_query_means"] = values["hs"].mean(dim=-1)
        height, columns = values["layer4_centre"].shape[-2:]
        code = sine_positions(height, columns, width, like=values["hs"])  # [h * w, d]
        values["pos_embedding"] = code.T.reshape(width, height, columns)
    return values


def compare(values: dict[str, Tensor], checks: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for part, check in some("checks", checks).items():
        if part == "hs_query_means":                                      # plain numbers, as large as hs
            largest = max(max(abs(stats["min"]), abs(stats["max"])) for stats in checks["hs"])
            yield part, apart(values[part], check) / largest
        else:
            yield part, nested(values[part], check)


def nested(value: Tensor, check: Any) -> float:
    """A block of statistics, or a list of such, one per index of the first axis."""
    if isinstance(check, dict):
        return agreement(value, check)
    if len(check) != len(value):
        return math.inf
    return max(nested(one, part) for one, part in zip(value, check, strict=True))


def agreement(value: Tensor, stats: dict[str, Any]) -> float:
    """Largest difference wherever the statistics look, relative to the largest number in them; infinity: the shape."""
    flat = value.double().flatten()
    ramp = (flat * torch.arange(len(flat)) / (len(flat) - 1)).mean()
    got = {"mean": flat.mean(), "std": flat.std(correction=0), "ramp": ramp, "min": flat.min(), "max": flat.max(),
           "first8": flat[:8], "last8": flat[-8:]}
    numbers = {name: torch.tensor(recorded, dtype=torch.float64) for name, recorded in stats.items() if name != "shape"}
    largest = max(number.abs().max().item() for number in numbers.values())
    if "shape" in stats and list(value.shape) != stats["shape"]:
        return math.inf
    return max(apart(got[name], number) for name, number in numbers.items()) / largest
