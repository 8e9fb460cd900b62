"""Two tables merged by name, then down the ranking row by row."""

import pandas


def average_precision(positive: list[int], score: list[float]) -> float:
    """PASCAL VOC 2010, all points: cumulated hits, precision envelope, area, each in a loop."""
    order = sorted(range(len(score)), key=lambda row: -score[row])
    total = sum(positive)
    hits, precision, recall = 0, [], []
    for rank, row in enumerate(order, 1):
        hits += positive[row]
        precision.append(hits / rank)
        recall.append(hits / total)
    for rank in range(len(precision) - 2, -1, -1):
        precision[rank] = max(precision[rank], precision[rank + 1])
    area, before = 0.0, 0.0
    for height, reached in zip(precision, recall, strict=True):
        area += (reached - before) * height
        before = reached
    return area


def score_tables(truth: pandas.DataFrame, prediction: pandas.DataFrame) -> dict[str, float]:
    """mAP, both AP and accuracy of tables that meet by clip, track and frame."""
    both = truth.merge(prediction, on=["clip", "track", "frame"], how="left")
    label, score = both["label"].tolist(), both["score"].tolist()
    looking = average_precision(label, score)
    away = average_precision([1 - value for value in label], [1 - value for value in score])
    right = sum((value >= 0.5) == bool(known) for known, value in zip(label, score, strict=True))
    return {"mAP": (looking + away) / 2, "ap_looking": looking, "ap_not_looking": away, "accuracy": right / len(label)}
