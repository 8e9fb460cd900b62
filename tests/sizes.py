"""How large the package is: lines of core, wings and tests, the longest file, the longest function.

Usage: python tests/sizes.py
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WINGS = ("compat", "synthetic", "priors", "doctor", "report", "experiments", "watch")


def lines(paths: list[Path]) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


def package(*wings: str) -> list[Path]:
    """Files of the wings that are named; of the core and the top level if none is."""
    files = sorted((ROOT / "gazepose").rglob("*.py"))
    folder = {file: file.relative_to(ROOT / "gazepose").parts[0] for file in files}
    if wings:
        return [file for file in files if folder[file] in wings]
    return [file for file in files if folder[file] not in WINGS] + [ROOT / "train.py", ROOT / "infer.py"]


def longest_file(paths: list[Path]) -> tuple[int, str]:
    return max((lines([path]), str(path.relative_to(ROOT))) for path in paths)


def longest_function(paths: list[Path]) -> tuple[int, str]:
    return max(((node.end_lineno or 0) - node.lineno + 1, f"{path.relative_to(ROOT)}:{node.name}") for path in paths
               for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


if __name__ == "__main__":
    core, wings = package(), package(*WINGS)
    for name, paths in (("core and top level", core), ("wings", wings), *((wing, package(wing)) for wing in WINGS),
                        ("tests", sorted((ROOT / "tests").rglob("*.py")))):
        size, longest = longest_file(paths)
        length, function = longest_function(paths)
        print(f"{name:20} {lines(paths):6} lines, {len(paths):3} files, longest {longest} {size}, "
              f"longest function {function} {length}")
