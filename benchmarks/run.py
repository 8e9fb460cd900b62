"""All benchmarks, one after another, each in a process of its own: python benchmarks/run.py [--quick] [--only NAME ...]

Each writes benchmarks/results/<name>.json. With --against COMMIT, each is also run by that commit's own scripts and
package, just before, in the same environment; its figures go to benchmarks/results/before.json. --table writes what is
there into docs/performance.md and runs nothing.
"""

import argparse
import importlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))      # run as a file: the package is beside it

from benchmarks.measure import RESULTS, ROOT, Goal, figure, without_places
from gazepose.io import write_json

NAMES = ("prepare", "loader", "inference", "step", "index", "metric", "startup", "gpu", "scaling", "features",
         "watch", "live", "searching", "realism")
"""in the order of the goals"""
PAGE = ROOT / "docs" / "performance.md"
BEFORE, OUT, EARLIER = "before", "results", Path(tempfile.gettempdir()) / "gazepose-benchmarks-before"


def result_of(name: str, results: Path) -> dict[str, Any]:
    """A benchmark's JSON, empty if it has not been run."""
    path = results / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {"measured": {}, "met": {}}


def table(names: Sequence[str], results: Path) -> str:
    """One line per goal as Markdown, then what was missed, then commands and machines. The JSON files have the rest."""
    lines = ["| goal | first figure (wanted) | met | against what, and what is counted |", "|---|---|---|---|"]
    missed: list[str] = []
    machines: dict[str, list[str]] = {}
    for name in names:
        goal: Goal = importlib.import_module(f"benchmarks.{name}").GOAL
        result = result_of(name, results)
        texts = {aim.what: f"{aim.what}: {'not measured' if value is None else figure(value)} ({aim.wanted})"
                 for aim in goal.aims for value in [result["measured"].get(aim.what)]}
        bounds = [aim.what for aim in goal.aims if aim.wanted != "stated"]
        met = [what for what in bounds if result["met"].get(what)]
        missed += [f"- {goal.number}. {texts[what]}" for what in bounds if what not in met]
        share = f"{len(met)} of {len(bounds)}" if bounds else "no bounds"
        lines.append(f"| {goal.number}. {goal.title} | {texts[goal.aims[0].what]} | {share} | {goal.how} |")
        if facts := result.get("machine"):
            threads = ", ".join(f"{key} {value}" for key, value in facts["threads"].items())
            versions = ", ".join(f"{key} {facts['versions'][key]}" for key in ("torch", "accelerate", "decord"))
            words = (f"{facts['cpu']}, {facts['cores']} cores, {facts['gpu'] or 'no GPU'}; threads: {threads}; "
                     f"{versions}; commit {facts['commit']}")
            machines.setdefault(words, []).append(f"`{result['command']}`")
    return "\n".join([*lines, "", "Missed, or not measured:", "", *missed, "", "Commands and machines:", "",
                      *(f"- {', '.join(found)}: {words}" for words, found in machines.items())]).rstrip()


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit, for as long as the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def run(name: str, flags: Sequence[str], tree: Path = ROOT) -> bool:
    """Run a benchmark of some tree; whether it ended well."""
    # first on the path, also for the processes that it starts
    found = {**os.environ, "PYTHONPATH": str(tree)}
    return not subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *flags], cwd=tree, env=found).returncode


def before_and_after(results: Path) -> str:
    """What both versions measured, as a Markdown table; empty where nothing was compared."""
    earlier = result_of(BEFORE, results)
    lines = ["| goal | figure (wanted) | before | now |", "|---|---|---|---|"]
    figures = earlier.get("figures", {})
    for name in filter(figures.get, NAMES):
        goal: Goal = importlib.import_module(f"benchmarks.{name}").GOAL
        measured, now = figures[name], result_of(name, results)["measured"]
        lines += ["| {} | {} ({}) | {} | {} |".format(goal.number, aim.what, aim.wanted, *map(figure, values))
                  for aim in goal.aims if None not in (values := (measured.get(aim.what), now.get(aim.what)))]
    return "\n".join([f"Before is commit {earlier['commit']}: `{earlier['command']}`", "", *lines]) if lines[2:] else ""


def between(page: str, mark: str, text: str) -> str:
    """The page with what stands between <!-- mark --> and <!-- end of mark --> replaced.

    Raises:
        ValueError: the marks are not there, once each.
    """
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"{PAGE}: wanted one {begin} and one {end} below it -> put them where the text goes")
    return f"{page[:page.index(begin)]}{begin}\n{text}\n{page[page.index(end):]}"


def write_page(page: Path, results: Path) -> None:
    """Write the tables into the page."""
    text = between(page.read_text(encoding="utf-8"), "results", table(NAMES, results))
    page.write_text(between(text, "before and after", before_and_after(results)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that all of it works, no figures")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--repeats", help="rounds of each; default that of its script")
    parser.add_argument("--against", metavar="COMMIT", help="run this version's benchmarks too, each just before ours")
    parser.add_argument("--table", action="store_true", help="write the results into docs/performance.md, run nothing")
    options = parser.parse_args()
    if options.table:
        write_page(PAGE, RESULTS)
        print(f"results of {RESULTS.relative_to(ROOT)} -> {PAGE.relative_to(ROOT)}")
        return
    results = RESULTS / "quick" if options.quick else RESULTS
    flags = [*(["--quick"] if options.quick else []), *(["--repeats", options.repeats] if options.repeats else [])]
    failed, before = [], {}
    with checked_out(options.against) if options.against else nullcontext() as tree:
        for name in options.only:
            if tree and run(name, [*flags, "--out", str(tree / OUT), "--work", str(EARLIER)], tree):
                before[name] = result_of(name, tree / OUT)["measured"]
            failed += [] if run(name, flags) else [name]
    if options.quick:
        print("\nquick: small sizes and one round, so these figures say only that everything works")
    print(table([name for name in options.only if name not in failed], results))
    if before:
        write_json(results / f"{BEFORE}.json", {"commit": options.against, "figures": before, "command": shlex.join(
            ["python", "benchmarks/run.py", *without_places(sys.argv[1:])])})
        print(f"\n{before_and_after(results)}")
    if failed:
        raise SystemExit(f"error: {', '.join(failed)} did not end well -> their messages stand above")


if __name__ == "__main__":
    main()
