"""A statistic, its section and a figure from outside of the package, and a column that alignkit does not know."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic import grid, synthetic_records

import alignkit
from alignkit.cli.main import main
from alignkit.columns import FORMAT_VERSION, FROM_PLAN
from alignkit.errors import AnalysisError, ReportError
from alignkit.records.rows import final_values
from alignkit.records.store import Records, load, write_cohort
from alignkit.report import Analysis, Answer, Chart, Table, drawing, question, write_report

pytestmark = pytest.mark.usefixtures("without_pdf")

STATISTIC = '''
"""How steady a response is: the range over seeds at each level of a factor."""


def ranges(table, *, factor):
    """A row for each level: `table` has a row per run, with `seed`, `value` and the factor."""
    seeds = table.groupby([factor, "seed"])["value"].mean().groupby(factor)
    return seeds.agg(lowest="min", highest="max").reset_index()
'''
SECTION = '''
"""The section: is the firmness of layers steady over seeds?"""

from own_figure import chart
from own_statistic import ranges

from alignkit.report import Answer, Table, question


@question("Is firmness steady?", name="steadiness")
def steadiness(analysis):
    if "firmness" not in analysis.measures:
        return None
    found = ranges(analysis.final("firmness", rule="dfa", design=analysis.design), factor="norm")
    widest = found.assign(range=found["highest"] - found["lowest"]).set_index("norm")["range"].idxmax()
    return Answer(
        (f"Firmness varies most at norm {widest}, over {analysis.n_seeds} seeds <of few>.",),
        (Table.of(found, name="steadiness", caption="The range of firmness over seeds."),),
        (chart(analysis),),
        ("Firmness is a measure of this study's own.",),
    )
'''
FIGURE = '''
"""The figure: firmness over training."""

from alignkit.figures import alignment_over_training
from alignkit.report import Chart


def chart(analysis):
    curves = analysis.curves("firmness", rules=["dfa"], design=analysis.design)
    figure = alignment_over_training(curves, response="firmness")
    return Chart("steadiness_curve", "Firmness over training", "Firmness grows.", "Means over seeds.", figure)


def angles(analysis):
    """The figure of a report, by its name alone."""
    curves = analysis.curves("signal_angle_deg", rules=["dfa"], design=None)
    return Chart("own_angles", "Angles again", "Angles fall.", "As above.", alignment_over_training(curves))


def too_much(analysis):
    curves = analysis.curves("delta_cosine", rules=["dfa"], design=analysis.design)
    return alignment_over_training(curves[curves["step"] == 0])
'''


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of modules that is no part of the package."""
    folder = tmp_path_factory.mktemp("modules")
    for name, code in {"own_statistic": STATISTIC, "own_section": SECTION, "own_figure": FIGURE}.items():
        (folder / f"{name}.py").write_text(code)
    yield folder
    for name in ("own_statistic", "own_section", "own_figure", "crash"):
        sys.modules.pop(name, None)


@pytest.fixture
def on_path(modules: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(modules)
    return modules


def small(**options: Any) -> Records:
    designs = {"cells": grid({"network.norm": ["none", "batch"]})}
    return synthetic_records(designs=designs, seeds=4, steps=(0, 45, 360), rules=("dfa",), **options)


def store(records: Records, directory: Path, *, without: dict[str, list[str]] | None = None) -> None:
    """Records as `alignkit run` leaves them, a cohort for each seed; in the first, columns may be left out."""
    directory.mkdir()
    (directory / "study.json").write_text(records.study.to_json())
    known = ["run_id", "rule", "cell", "designs", "bp_run_id", "seed"]
    levels = records.runs[list(records.factors)].to_dict("records")
    runs = [run | {"levels": of} for run, of in zip(records.runs[known].to_dict("records"), levels, strict=True)]
    (directory / "plan.json").write_text(
        json.dumps({"format": FORMAT_VERSION, "factors": list(records.factors), "runs": runs})
    )
    for seed, own in records.runs.groupby("seed"):
        tables = {
            "runs": own.drop(columns=[*FROM_PLAN - {"run_id"}, *records.factors]),
            "checkpoints": records.checkpoints[records.checkpoints["run_id"].isin(own["run_id"])],
            "layers": records.layers[records.layers["run_id"].isin(own["run_id"])],
        }
        if seed == 0:
            tables = {name: table.drop(columns=(without or {}).get(name, [])) for name, table in tables.items()}
        write_cohort(directory, f"{seed:016x}", tables, {"seconds": 1.0})


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records in which the user's own code left a measure, firmness; the first cohort is older than it, and than gate."""
    records = small()
    layers = records.layers
    firmness = layers["step"] / 360 + layers["layer"] + layers["run_id"].str.contains("batch")
    wider = synthetic_like(records, layers.assign(firmness=firmness, note="seen"))
    directory = tmp_path_factory.mktemp("stored") / "study"
    store(wider, directory, without={"layers": ["firmness", "note", "gate"], "runs": ["parameters"]})
    return directory


def synthetic_like(records: Records, layers: pd.DataFrame) -> Records:
    return Records(records.study, records.runs, records.checkpoints, layers, records.factors)


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "copy"))


def call(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit status of a command, and what it printed on either stream."""
    argv, sys.argv = sys.argv, ["alignkit", *map(str, arguments)]
    try:
        main()
        code = 0
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    finally:
        sys.argv = argv
    printed = capsys.readouterr()
    return code, printed.out + printed.err


# Records


def test_a_foreign_column_goes_from_the_records_to_an_analysis(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = load(stored)
    old = records.layers["run_id"].isin(records.runs.loc[records.runs["seed"] == 0, "run_id"])
    assert records.layers.loc[old, ["firmness", "note", "gate"]].isna().all(axis=None)
    assert records.layers.loc[~old, ["firmness", "note", "gate"]].notna().any().all()
    found = alignkit.compare(records, factor="norm", response="firmness")
    assert found.estimate == pytest.approx(1) and found.n_seeds == 3
    assert alignkit.compare(records, factor="norm", response="firmness", summary="auc", layer=2).estimate == 1
    assert final_values(records, rule="dfa", design=None, response="firmness")["value"].notna().sum() == 6
    assert alignkit.fit(records, "norm", response="firmness", layers=True, method="pooled").n_seeds == 3
    for format in ("csv", "parquet"):
        path = tmp_path / f"layers.{format}"
        assert call("records", stored, "--table", "layers", "--format", format, "--output", path, capsys=capsys)[0] == 0
        table = pd.read_csv(path) if format == "csv" else pd.read_parquet(path)
        pd.testing.assert_series_equal(table["firmness"], records.layers["firmness"])


def test_a_report_shows_what_was_recorded_and_no_more(stored: Path, copy: Path) -> None:
    text = write_report(load(copy), copy).read_text(encoding="utf-8")
    assert "<dt><code>firmness</code></dt><dd>a measure of the study&#39;s own</dd>" in text
    table = pd.read_csv(copy / "tables" / "final_measures.csv")
    assert table["firmness"].tolist() == [2.5, 3.5] and list(table)[-1] == "firmness"
    assert 'id="steadiness"' not in text and "note</code>" not in text


# Sections and figures


def test_a_statistic_its_section_and_a_figure_reach_the_page(
    copy: Path, modules: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(modules)
    code, said = call(
        "report", copy, "--section", "own_section:steadiness", "--figure", "own_figure:angles", capsys=capsys
    )
    assert code == 0, said
    text = (copy / "index.html").read_text(encoding="utf-8")
    sections = re.findall(r'<section id="([^"]+)"', text)
    assert sections.index("model") < sections.index("steadiness") < sections.index("effects")
    assert '<a href="#steadiness">Is firmness steady?</a>' in text and "Is firmness steady?</h2>" in text
    assert re.search(r"Firmness varies most at norm \w+, over 4 seeds &lt;of few&gt;\.", text)
    assert (
        "The range of firmness over seeds." in text
        and "<li>Firmness is a measure of this study&#39;s own.</li>" in text
    )
    figures = re.findall(r'<figure id="figure-([^"]+)"', text)
    assert figures.index("own_angles") == figures.index("effects") + 1 and "steadiness_curve" in figures
    numbers = re.findall(r"<strong>Figure (\d+)\. ([^<]+)</strong>", text)
    assert [int(number) for number, _ in numbers] == list(range(1, len(figures) + 1))
    assert dict(map(reversed, numbers))["Firmness grows."] > dict(map(reversed, numbers))["Angles fall."]
    table = pd.read_csv(copy / "tables" / "steadiness.csv")
    assert list(table) == ["norm", "lowest", "highest"] and table["lowest"].tolist() == [3.5, 2.5]
    assert "<td" in text and ">2.500</td>" in text
    for name in ("steadiness_curve", "own_angles"):
        assert (copy / "figures" / f"{name}.svg").read_bytes().startswith(b"<?xml")
    assert (copy / "tables" / "steadiness.tex").is_file()


def test_without_them_the_report_is_what_it_was(copy: Path, tmp_path: Path, on_path: Path) -> None:
    records = load(copy)
    plain = write_report(records, tmp_path / "plain").parent
    with_own = write_report(records, tmp_path / "own", sections=["own_section:steadiness"]).parent
    files = {path.relative_to(plain) for path in plain.rglob("*") if path.is_file()}
    added = {path.relative_to(with_own) for path in with_own.rglob("*") if path.is_file()} - files
    assert added == {Path(f"figures/steadiness_curve.{kind}") for kind in ("svg", "pdf")} | {
        Path(f"tables/steadiness.{kind}") for kind in ("csv", "tex")
    }
    same = [path for path in files if (plain / path).read_bytes() == (with_own / path).read_bytes()]
    assert set(same) == files - {Path("index.html")}


def test_functions_are_taken_as_they_are(tmp_path: Path) -> None:
    @question("What <is> it?", name="own")
    def decorated(analysis: Analysis) -> Answer:
        return Answer((f"{len(analysis.runs)} runs.",))

    def plain_section(analysis: Analysis) -> Answer:
        return Answer(("A plain function.",))

    def absent(analysis: Analysis) -> None:
        return None

    def unanswered(analysis: Analysis) -> Answer:
        raise AnalysisError("expected more runs; got fewer")

    @drawing("By rule", each_rule=True)
    def by_rule(analysis: Analysis, rule: str) -> Chart:
        return Chart(f"own_{rule}", "By rule", f"It is {rule}.", "Drawn.", Figure())

    page = write_report(
        small(), tmp_path, sections=[decorated, plain_section, absent, unanswered], figures=[by_rule]
    ).read_text(encoding="utf-8")
    assert '<section id="own"' in page and "What &lt;is&gt; it?" in page and "8 runs." in page
    assert "Plain section</h2>" in page and "absent" not in re.findall(r'<section id="([^"]+)"', page)
    assert "Unanswered: expected more runs; got fewer." in page and "It is dfa." in page


def test_names_do_not_clash(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1]})

    def model(analysis: Analysis) -> Answer:
        return Answer(("Mine.",))

    def twice(analysis: Analysis) -> Answer:
        return Answer((), (Table.of(frame, name="final_measures", caption=""),))

    def twin(analysis: Analysis) -> Chart:
        return Chart("effects", "", "", "", Figure())

    records = small()
    for own, message in (
        ({"sections": [model]}, 'section model: expected a name .* that no other section has; got "model"'),
        ({"sections": [twice]}, 'expected tables of different names; got "final_measures" twice'),
        ({"figures": [twin]}, 'expected charts of different names; got "effects" twice'),
        ({"sections": "own_section:steadiness"}, "sections: expected a list of names or functions"),
    ):
        with pytest.raises(ReportError, match=message):
            write_report(records, tmp_path, **own)
    assert not list(tmp_path.iterdir())


def _gives(result: Any) -> Callable[[Analysis], Any]:
    def mine(analysis: Analysis) -> Any:
        return result

    return mine


FRAME = pd.DataFrame({"a": [1]})
BAD: dict[str, tuple[Any, str]] = {
    "text": ("yes", "expected Answer(...) or None from it; got str"),
    "one text for sentences": (Answer("yes"), "sentences: expected texts; got 'yes'"),  # type: ignore[arg-type]
    "numbers for notes": (Answer((), notes=(1,)), "notes: expected texts"),  # type: ignore[arg-type]
    "no table": (Answer((), (FRAME,)), "tables: expected Table"),  # type: ignore[arg-type]
    "a path for a name": (Answer((), (Table.of(FRAME, name="../a", caption=""),)), "expected a name of letters"),
    "a short row": (Answer((), (Table("t", "", ("a", "b"), (("1",),), FRAME),)), "expected rows of 2 texts.*got 1"),
    "no figure": (Answer((), (), (Chart("c", "", "", "", None),)), "expected a matplotlib Figure"),  # type: ignore[arg-type]
    "no chart": (Answer((), (), (Figure(),)), "charts: expected Chart"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("result,message", BAD.values(), ids=BAD)
def test_a_bad_answer_is_one_message(result: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=f"section mine: .*{message}".replace("(...)", re.escape("(...)"))):
        write_report(small(), tmp_path, sections=[_gives(result)])
    assert not list(tmp_path.iterdir())


def test_a_bad_figure_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"figure mine: expected Chart\(\.\.\.\) or None from it; got Figure"):
        write_report(small(), tmp_path, figures=[_gives(Figure())])


NAMES = {
    "no such module": ("--section", "nowhere_at_all:x", "cannot be imported (ModuleNotFoundError"),
    "no such name": ("--figure", "own_figure:nothing", "cannot be imported (AttributeError"),
    "no colon": ("--section", "own_section", "expected a name of the form module:name"),
    "no function": ("--section", "own_statistic:__name__", "expected a function of an Analysis that gives an Answer"),
    "a crash": ("--figure", "crash:figure", "KeyError: 'nothing' ("),
    "no chart": ("--figure", "own_figure:too_much", "What this report lacks"),
}


@pytest.mark.parametrize("option,name,message", NAMES.values(), ids=NAMES)
def test_a_bad_name_is_one_message_and_status_2(
    option: str, name: str, message: str, copy: Path, on_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (on_path / "crash.py").write_text("def figure(analysis):\n    return analysis.runs['nothing']\n")
    code, said = call("report", copy, option, name, capsys=capsys)
    if name.endswith("too_much"):  # what the records cannot carry is no error: the page says so
        text = (copy / "index.html").read_text(encoding="utf-8")
        assert code == 0 and "Too much: expected at least two checkpoints" in text
        return
    assert code == 2 and message in said and name in said and "Traceback" not in said
    assert not (copy / "index.html").exists()


@pytest.mark.slow
def test_the_console_command_finds_a_module_in_the_current_directory(copy: Path, modules: Path) -> None:
    script = "import sys; from alignkit.cli.main import main; sys.argv[0] = 'alignkit'; main()"
    command = [sys.executable, "-P", "-c", script, "report", copy, "--section", "own_section:steadiness"]
    environment = {**os.environ, "PYTHONPATH": str(Path(alignkit.__file__).parents[1])}
    done = subprocess.run(command, cwd=modules, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert 'id="steadiness"' in (copy / "index.html").read_text(encoding="utf-8")
