"""The architecture in one list: which room may import which. Top imports bottom, never back or across."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENTRY = ["train", "infer", "gazepose.__main__"]
VERBS = ["gazepose.config", "gazepose.sources", "gazepose.runlog", "gazepose.engine", "gazepose.checkpoint",
         "gazepose.predictions", "gazepose.submission", "gazepose.report", "gazepose.metrics", "gazepose.optim",
         "gazepose.augment", "gazepose.guide", "gazepose.distributed", "gazepose.sweep", "gazepose.chain",
         "gazepose.frozen"]
MODELS = ["gazepose.models"]
DATA = ["gazepose.data", "gazepose.priors", "gazepose.synthetic"]
DOCTOR = ["gazepose.doctor"]
BASE = ["gazepose.process", "gazepose.gate"]              # below everything
MAY_IMPORT = {**{room: VERBS + DOCTOR + MODELS + DATA + BASE for room in ENTRY},
              **{room: DOCTOR + DATA + BASE for room in DOCTOR},
              **{room: VERBS + MODELS + DATA + BASE for room in VERBS},
              **{room: MODELS + BASE for room in MODELS}, **{room: DATA + BASE for room in DATA},
              **{room: [] for room in BASE}}
ONLY_HERE = {"decord": ["gazepose.data.video"], "tyro": ["gazepose.config", "gazepose.__main__"],
             "timm": ["gazepose.models"], "mediapipe": ["gazepose.priors.landmarks"],
             "sklearn": ["gazepose.chain.boosting"]}


def modules() -> dict[str, Path]:
    files = [ROOT / "train.py", ROOT / "infer.py", *sorted((ROOT / "gazepose").rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(module: str, rooms: list[str]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_down_only(module: str):
    if module == "gazepose":
        assert not any(name.startswith("gazepose.") for name in imports(modules()[module]))
        return
    room = next((room for room in MAY_IMPORT if within(module, [room])), None)
    assert room, f"{module} has no place in the house: add it to this list, or put it where it belongs"
    for name in imports(modules()[module]):
        if name.startswith("gazepose."):
            assert within(name, MAY_IMPORT[room] + BASE) or name.count(".") == 1 and any(
                allowed.startswith(name) for allowed in MAY_IMPORT[room]), f"{module} must not import {name}"


@pytest.mark.parametrize("package", sorted(ONLY_HERE))
def test_a_package_has_one_door(package: str):
    users = [module for module, file in modules().items()
             if any(name.split(".")[0] == package for name in imports(file))]
    assert users and all(within(user, ONLY_HERE[package]) for user in users), users
