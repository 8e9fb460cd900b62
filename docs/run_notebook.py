"""Run docs/first_steps.ipynb in an empty folder, as a reader would, and print what it prints. Nothing is kept.

Usage: PYTHONPATH=. python docs/run_notebook.py
"""

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

from gazepose.priors.model_files import find

NOTEBOOK = Path(__file__).with_name("first_steps.ipynb")


def run(notebook: Path, folder: Path, seconds: int = 240) -> str:
    """Run a notebook in a folder; what its cells print. CellExecutionError: a cell raised an error."""
    os.environ["PYTHONPATH"] = str(NOTEBOOK.parents[1])                  # the kernel runs in another folder
    done = NotebookClient(nbformat.read(notebook, as_version=4), timeout=seconds, resources={
        "metadata": {"path": str(folder)}}).execute()
    return "".join(output.get("text", "") for cell in done.cells for output in cell.get("outputs", ())
                   if output.get("name") == "stdout")


if __name__ == "__main__":
    try:
        find("yunet"), find("face_landmarker")
    except FileNotFoundError as error:
        print(f"notebook: not run; {error}")
        sys.exit()
    started = time.monotonic()
    with TemporaryDirectory() as place:
        print(run(NOTEBOOK, Path(place)).rstrip())
    print(f"notebook: {time.monotonic() - started:.0f} s")
