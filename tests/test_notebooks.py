"""Notebooks: each is a script and what it gave, and runs from the first cell to the last."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

# `make test-notebooks` installs what runs them; the other tests do without.
jupytext = pytest.importorskip("jupytext")
pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[1] / "studies" / "notebooks"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if path.name[:2].isdigit())
MOST_BYTES = 300_000


def _executed(script: Path, folder: Path):
    spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.executed(script, folder)


def _outputs(notebook):
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def test_every_notebook_has_its_script():
    assert SCRIPTS and {path.stem for path in SCRIPTS} == {path.stem for path in FOLDER.glob("*.ipynb")}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_and_notebook_hold_the_same_cells(script):
    written, notebook = jupytext.read(script), jupytext.read(script.with_suffix(".ipynb"))
    cells = [[(cell.cell_type, cell.source) for cell in each.cells] for each in (written, notebook)]
    assert cells[0] == cells[1], "run: python studies/notebooks/execute.py"
    assert notebook.metadata["jupytext"]["formats"] == "ipynb,py:percent"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_is_committed_is_whole_small_and_of_no_machine(script):
    path = script.with_suffix(".ipynb")
    text, notebook = path.read_text(encoding="utf-8"), json.loads(path.read_text(encoding="utf-8"))
    assert len(text) < MOST_BYTES
    assert [cell["id"] for cell in notebook["cells"]] == [f"cell-{n:02d}" for n in range(1, len(notebook["cells"]) + 1)]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = _outputs(notebook)
    assert outputs and not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"], "warnings"
    words = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.findall(r"(?:/home|/root|/tmp|/work|/Users)/[^\s\"]*|[A-Z]:\\\\Users", words)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of Jupyter's own packages are not ours
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_notebooks_run(script, tmp_path):
    notebook = _executed(script, tmp_path)  # raises where a cell does
    committed = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    kinds = [[output["output_type"] for output in _outputs(each)] for each in (notebook, committed)]
    assert kinds[0] == kinds[1]
