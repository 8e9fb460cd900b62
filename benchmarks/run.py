"""All benchmarks, one after another, each in a process of its own: python -m benchmarks.run [--quick] [--only NAME ...]

Each writes benchmarks/results/<name>.json; here only the order and the table at the end.
"""

import argparse
import json
import subprocess
import sys

from benchmarks.measure import RESULTS, ROOT, figure

NAMES = ("prepare", "loader", "inference", "step", "index", "metric", "startup", "gpu")
"""in the order of the goals"""


def table(names: list[str], quick: bool) -> str:
    """Goal, wanted, measured and command of the results that are there, as Markdown."""
    lines = ["| goal | what | wanted | measured | met |", "|---|---|---|---|---|"]
    for name in names:
        path = (RESULTS / "quick" if quick else RESULTS) / f"{name}.json"
        if path.is_file():
            result = json.loads(path.read_text())
            for what, wanted in result["wanted"].items():
                met = {True: "yes", False: "no", None: "-"}[result["met"][what]]
                lines.append(f"| {result['goal']} | {what} | {wanted} | {figure(result['measured'][what])} | {met} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that all of it works, no figures")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    options = parser.parse_args()
    failed = [name for name in options.only if subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if options.quick else [])], cwd=ROOT).returncode]
    print(table(options.only, options.quick))
    if failed:
        raise SystemExit(f"error: {', '.join(failed)} did not end well -> their messages stand above")


if __name__ == "__main__":
    main()
