"""Run the percent scripts of this folder, and write the notebook of each with its outputs.

    python studies/notebooks/execute.py                 all of them
    python studies/notebooks/execute.py 01_first_look   one

The same numbers give the same file: cells are numbered, and no time or path is kept.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def scripts() -> list[Path]:
    return sorted(path for path in HERE.glob("*.py") if path.name[:2].isdigit())


def executed(script: Path, folder: str | Path) -> Any:
    """The notebook of a script, run in `folder`. Raises nbclient's `CellExecutionError` where a cell fails."""
    notebook = jupytext.read(script)
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {}
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py"}
    return notebook


def write(script: Path) -> Path:
    """Run a script in a folder of its own and write the notebook beside it."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(script, folder)
    nbformat.write(notebook, script.with_suffix(".ipynb"))
    return script.with_suffix(".ipynb")


if __name__ == "__main__":
    for script in [HERE / f"{name}.py" for name in sys.argv[1:]] or scripts():
        print(write(script), flush=True)
