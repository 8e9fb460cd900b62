"""priors.json: landmark form and rows, head pose bins and expectation, image quality, and the drop rule.

Not compared: `reciprocal_multiply_*`, what a GPU would make of bin edges by dividing through a reciprocal (ours
divides, on every device); and `laplacian_sum_of_absolutes`, which helps to find out why a variance differs.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from gazepose.data.quality import drop_in_evaluation, drop_in_training, fit_gaussian, laplacian_variance, quality_p
from gazepose.models import ModelConfig
from gazepose.models.queries import HeadPoseQueries, LandmarkQueries, eye_centred
from gazepose.priors.head_pose import expected_angle
from golden import Result, apart, octets, read, same, some, z

LANDMARK = 1e-6
ANGLE = 1e-4                     # degrees; the recorded sums are of float32
QUALITY = 1e-12                  # relative; a whole sum against one of floats
FIT = ModelConfig()              # the default steps of the landmark tables


def check(folder: Path) -> Iterator[Result]:
    recorded = read(folder / "priors.json")
    salt = read(folder / "models.json")["fill"]["salt"]
    yield from check_landmarks(recorded)
    for record in some("head_bins", recorded["head_bins"]):
        yield from check_bins(record)
    for number, record in enumerate(some("head_pose_expectation", recorded["head_pose_expectation"])):
        logits = (z(f"{salt}hopenet/{number}", 66) * record["scale"]).astype(np.float32)
        yield Result(f"head pose expectation {number}", apart(expected_angle(logits), record["degrees"]), ANGLE)
    for name, group in some("quality", recorded["quality"]).items():
        yield from check_quality(salt, name, group)
    yield from check_drop(recorded["drop"])


def check_landmarks(recorded: dict) -> Iterator[Result]:
    for record in some("landmarks", recorded["landmarks"]):
        points = torch.tensor(record["points"])[None, :, [0, 1, 3]]       # x, y, visibility; z is not used
        layout = eye_centred(points)[0].T.flatten()
        yield Result(f"landmarks: {record['name']}", apart(layout, record["expected"]), LANDMARK)
    record = recorded["landmark_index"]
    queries = LandmarkQueries(8, dsplit=FIT.dsplit, csplit=FIT.csplit, published=True)
    yield Result("landmark tables", same([len(queries.cell.weight), len(queries.confidence.weight)],
                                         [record["rows_in_table"], record["rows_in_confidence_table"]]), 0)
    vectors = torch.tensor(some("landmark_index.vectors", record["vectors"])).view(-1, 3, 5).transpose(1, 2)
    cell, confidence = queries.rows(vectors)
    yield Result("landmark rows", same(cell.tolist(), record["row"]), 0)
    yield Result("confidence rows", same(confidence.tolist(), record["confidence_row"]), 0)
    yield Result("largest landmark row", same(int(cell.max()), record["max_row"]), 0)
    for dsplit, facts in some("landmark_table_sizes", recorded["landmark_table_sizes"]).items():
        queries = LandmarkQueries(8, dsplit=float(dsplit), csplit=FIT.csplit, published=True)
        yield Result(f"landmark table of {dsplit}", same(
            {"table": len(queries.cell.weight), "row_factor": queries.stride, "bins_per_axis": queries.top + 1,
             "largest_row_used": corner_row(queries)}, facts), 0)


def corner_row(queries: LandmarkQueries) -> int:
    """Row of the cell that is farthest down and right."""
    return int(queries.rows(torch.tensor([2.0, 2.0, 1.0]).expand(1, 5, 3))[0].max())


def check_bins(record: dict) -> Iterator[Result]:
    queries = HeadPoseQueries(8, split=record["split"], published=True)
    yield Result(f"head pose table of {record['split']}", same(len(queries.yaw.weight), record["table"]), 0)
    angles = torch.tensor(some("angles", record["angles"]))[:, None].expand(-1, 3)
    # past the table the published code crashes; ours takes the last bin
    expected = [bin_ if fits else record["table"] - 1 for bin_, fits in zip(
        record["bins"], record["fits"], strict=True)]
    yield Result(f"head pose bins of {record['split']}", same(queries.rows(angles).T.tolist(), [expected] * 3), 0)


def picture(salt: str, group: str, number: int, image: dict) -> np.ndarray:
    """By the inputs rule, uint8 [height, width, 3]."""
    height, width, repeat, amplitude = (image[name] for name in ("height", "width", "repeat", "amplitude"))
    rows, columns = -(-height // repeat), -(-width // repeat)
    raw = octets(f"{salt}laplacian/{group}/{number}", rows * columns * 3).reshape(rows, columns, 3)
    pixels = (raw * amplitude // 256 + (256 - amplitude) // 2).astype(np.uint8)
    return np.ascontiguousarray(pixels.repeat(repeat, 0).repeat(repeat, 1)[:height, :width])


def check_quality(salt: str, name: str, group: dict) -> Iterator[Result]:
    images = some(f"quality of {name}", group["images"])
    pictures = [picture(salt, name, number, image) for number, image in enumerate(images)]
    yield Result(f"images of {name}", same([zlib.crc32(pixels.tobytes()) for pixels in pictures],
                                           [image["crc32"] for image in images]), 0)
    variances = np.array([laplacian_variance(pixels) for pixels in pictures])
    expected = np.array([image["variance"] for image in images])
    yield Result(f"variances of {name}", apart(variances / expected.max(), expected / expected.max()), QUALITY)
    fit = fit_gaussian(variances) or {}
    yield Result(f"fit of {name}", max(apart(fit.get("mean"), group["mean"]) / group["mean"],
                                       apart(fit.get("std"), group["std_ddof1"]) / group["std_ddof1"]), QUALITY)
    p, recorded = quality_p(variances, **fit), [image["p"] for image in images]
    yield Result(f"p of {name}", apart(p, recorded), QUALITY)
    yield Result(f"dropped of {name}", same(drop_in_evaluation(p).tolist(), [value < 0.2 for value in recorded]), 0)


def check_drop(recorded: dict) -> Iterator[Result]:
    training, evaluation = recorded["train"], recorded["val"]
    dropped = drop_in_training(np.array(training["p"])[:, None], np.array(training["u"])).tolist()
    yield Result("dropped in training", same(some("drop.train", dropped), training["dropped"]), 0)
    dropped = drop_in_evaluation(np.array(evaluation["p"])).tolist()
    yield Result("dropped in evaluation", same(some("drop.val", dropped), evaluation["dropped"]), 0)
    uniform, unknown = np.array(training["u"]), np.array([np.nan])
    counts_as = np.array([float(recorded["missing_p_counts_as"])])
    yield Result("a missing p", same(
        (drop_in_training(unknown, uniform).tolist(), drop_in_evaluation(unknown).tolist()),
        (drop_in_training(counts_as, uniform).tolist(), drop_in_evaluation(counts_as).tolist())), 0)
