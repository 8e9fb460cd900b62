"""The architecture in one ordered list: a room imports only rooms before it. Lazy imports count too."""

import ast
from functools import cache
from pathlib import Path

import pytest
from sizes import lines, longest_function, package

ROOT = Path(__file__).resolve().parents[1]
BASE = ["io", "text", "manifest", "columns", "keyed_random", "output", "startup", "errors", "heartbeat",
        "signals", "processes", "progress", "tensor_files", "records", "machine"]
CORE = ["models", "data", "evaluation", "training"]
DRAWING = "report.style"                      # the wings' one shared room
WINGS = ["compat", "synthetic", "priors", "doctor", "report", "experiments"]
LAST_WING = "watch"                           # may use priors, where the landmark network is
TOP = ["source", "config", "programs", "train", "infer", "api", "deploy", "model_card", "publish", "live",
       "prior_verbs", "verbs", "project_verbs", "__main__", "flags_page", "completion"]
LAZY = {("source", "synthetic"), ("training.checkpoint", "compat"), ("experiments.plan", "config"),
        ("project_verbs", "flags_page"), ("verbs", "completion"), ("data.annotations", "compat")}
"""imports of a wing by a room before it: inside a function only"""
TO_MEND: set[tuple[str, str]] = set()
ONLY_HERE = {"decord": ["data.video"], "tyro": ["config", "__main__", "completion"],
             "timm": ["models", "compat.checkpoints"], "ai_edge_litert": ["priors.face_landmarker"], "filelock": ["io"],
             "jinja2": ["report.page"],
             "sklearn": ["evaluation.metrics", "experiments", "report", "watch.agree"], "numba": ["synthetic"],
             "matplotlib": ["report", "experiments"]}
"""packages with one door"""


def modules() -> dict[str, Path]:
    files = sorted((ROOT / "gazepose").rglob("*.py"))
    names = {".".join(file.relative_to(ROOT / "gazepose").with_suffix("").parts).removesuffix("__init__").strip("."):
             file for file in files if file.name != "__main__.py"}
    return {**{name: file for name, file in names.items() if name}, "__main__": ROOT / "gazepose" / "__main__.py"}


@cache
def imports(file: Path) -> dict[str, bool]:
    """What a file imports -> whether only inside functions."""
    found: dict[str, bool] = {}

    def visit(node: ast.AST, lazy: bool) -> None:
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names = [f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}".removeprefix("gazepose.") in ALL
                     else str(node.module) for alias in node.names]
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for name in names:
            found[name] = found.get(name, True) and lazy
        for child in [] if typing_only else ast.iter_child_nodes(node):
            visit(child, lazy)

    visit(ast.parse(file.read_text()), False)
    return found


def room_of(module: str) -> str:
    if module == DRAWING:
        return DRAWING
    return module.split(".")[0]


ALL = modules()


def may_import(room: str) -> set[str]:
    """Rooms that a room may import at module level."""
    order = BASE + CORE
    if room in order:
        allowed = set(order[:order.index(room)])
        return allowed | set(BASE) if room in CORE else allowed
    if room == DRAWING:
        return set(order)
    if room in WINGS:
        return {*order, DRAWING}
    if room == LAST_WING:
        return {*order, DRAWING, "priors"}
    return {*order, DRAWING, *WINGS, LAST_WING, *TOP[:TOP.index(room)]}


@pytest.mark.parametrize("module", sorted(ALL))
def test_a_room_imports_only_rooms_before_it(module: str):
    room = room_of(module)
    assert room in [*BASE, *CORE, DRAWING, *WINGS, LAST_WING, *TOP], f"{module} has no place in the house"
    for name, lazy in imports(ALL[module]).items():
        if not name.startswith("gazepose."):
            continue
        target = name.removeprefix("gazepose.")
        other = room_of(target)
        if other == room or other in may_import(room):
            continue
        allowed = lazy and any(module == where and other == wing for where, wing in LAZY)
        assert allowed or (module, other) in TO_MEND, f"{module} must not import {name}"


@pytest.mark.parametrize("package", sorted(ONLY_HERE))
def test_a_package_is_imported_in_one_room_only(package: str):
    users = [module for module, file in ALL.items() if any(name.split(".")[0] == package for name in imports(file))]
    inside = ONLY_HERE[package]
    assert users and all(any(f"{user}.".startswith(f"{room}.") for room in inside) for user in users), users


def test_files_and_functions_stay_short():
    assert not {name: lines([file]) for name, file in ALL.items() if lines([file]) > 380}
    length, function = longest_function(package())
    assert length <= 100, f"{function} has {length} lines"
