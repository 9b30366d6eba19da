"""Records round trips: what is written is read back, odd numbers and odd names too."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.columns import CHECKPOINTS, FORMAT_VERSION, FROM_PLAN, LAYERS, RUNS
from alignkit.records.files import read_object, read_table, to_parquet, write_bytes, write_text
from alignkit.records.plan_file import read_plan
from alignkit.records.store import load, write_cohort

UNICODE = st.text(
    st.characters(exclude_categories=("Cs", "Cc")), max_size=8
)  # a study with control characters is refused
ODD_FLOATS = st.sampled_from([0.0, -0.0, 5e-324, -2.2250738585072014e-308, 1.7976931348623157e308, 0.1])
INT64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([-(2**63), 2**63 - 1, 2**53 + 1]))
VALUES: dict[str, st.SearchStrategy] = {
    "string": UNICODE,
    "float64": st.one_of(st.floats(), ODD_FLOATS),
    "int64": INT64,
    "Int64": st.one_of(st.none(), INT64),
    "bool": st.booleans(),
}
STORED = {
    "runs": {name: kind for name, (kind, _) in RUNS.items() if name not in FROM_PLAN},
    "checkpoints": {name: kind for name, (kind, _) in CHECKPOINTS.items()},
    "layers": {name: kind for name, (kind, _) in LAYERS.items()},
}


def frame_of(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    dtypes = {"string": "str"}
    return pd.DataFrame(
        {name: pd.Series([row[name] for row in rows], dtype=dtypes.get(kind, kind)) for name, kind in columns.items()}
    )


def bits(column: pd.Series) -> list[Any]:
    """A column's values such that -0.0 is not 0.0, and every NaN is the same."""
    if column.dtype == np.float64:
        return column.where(column.notna(), np.nan).to_numpy().view(np.int64).tolist()
    return [None if value is pd.NA else value for value in column.tolist()]


def same(found: pd.DataFrame, expected: pd.DataFrame) -> bool:
    return list(found) == list(expected) and all(bits(found[name]) == bits(expected[name]) for name in expected)


@st.composite
def rows_of(draw: st.DrawFn, table: str, run_ids: list[str] | None = None) -> list[dict[str, Any]]:
    row = st.fixed_dictionaries({name: VALUES[kind] for name, kind in STORED[table].items()})
    if run_ids is None:
        return draw(st.lists(row, min_size=1, max_size=3))
    return [{**draw(row), "run_id": run_id} for run_id in run_ids]


@pytest.mark.parametrize("table", STORED)
@settings(max_examples=15)
@given(st.data())
def test_a_table_comes_back_to_the_bit(table: str, data: st.DataObject) -> None:
    frame = frame_of(data.draw(rows_of(table)), STORED[table])
    content = to_parquet(frame)
    assert content == to_parquet(frame)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{table}.parquet"
        write_bytes(path, content)
        found = read_table(path, table, checksum=None, mend="")
    assert same(found, frame) and to_parquet(found) == content


def test_a_whole_number_beside_a_missing_one_is_not_rounded(tmp_path: Path) -> None:
    row = {name: {"string": "r", "bool": False}.get(kind, 1) for name, kind in STORED["runs"].items()}
    frame = frame_of([{**row, "diverged_step": step} for step in (2**53 + 1, None)], STORED["runs"])
    write_bytes(tmp_path / "runs.parquet", to_parquet(frame))
    found = read_table(tmp_path / "runs.parquet", "runs", checksum=None, mend="")
    assert found["diverged_step"].tolist() == [2**53 + 1, pd.NA]


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), UNICODE)
JSON = st.one_of(PLAIN, st.lists(PLAIN, max_size=3), st.dictionaries(UNICODE, st.lists(PLAIN, max_size=2), max_size=3))


@given(st.dictionaries(UNICODE, JSON, max_size=4), st.booleans())
def test_an_object_comes_back_from_its_file(value: dict[str, Any], ascii_only: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "object.json"
        write_text(path, json.dumps(value, ensure_ascii=ascii_only))
        assert read_object(path, "") == value
        assert [entry.name for entry in Path(folder).iterdir()] == ["object.json"]


@st.composite
def studies(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """A plan, and the tables of a cohort that holds its runs in another order."""
    factors = draw(st.lists(UNICODE.filter(lambda name: name not in RUNS), min_size=1, max_size=3, unique=True))
    level = {
        name: draw(st.sampled_from([UNICODE, st.booleans(), st.floats(allow_nan=False), INT64])) for name in factors
    }
    run_ids = draw(st.lists(UNICODE, min_size=1, max_size=3, unique=True))
    planned = [
        {
            "run_id": run_id, "rule": draw(UNICODE), "cell": draw(UNICODE), "designs": draw(UNICODE), "bp_run_id": "",
            "seed": draw(INT64), "levels": {name: draw(level[name]) for name in factors}, "replicate": draw(UNICODE),
            "bp_replicate": "", "tunes": False,
        }
        for run_id in run_ids
    ]  # fmt: skip
    order = draw(st.permutations(run_ids))
    tables = {table: frame_of(draw(rows_of(table, order)), STORED[table]) for table in STORED}
    return {"format": FORMAT_VERSION, "factors": factors, "runs": planned}, tables


@settings(max_examples=12)
@given(studies())
def test_a_study_comes_back_in_the_order_of_its_plan(study: tuple[dict[str, Any], dict[str, pd.DataFrame]]) -> None:
    plan, tables = study
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        write_text(directory / "study.json", '{"name": "t"}')
        write_text(directory / "plan.json", json.dumps(plan))
        write_cohort(directory, "0" * 16, tables, {"seconds": 1.0})
        assert read_plan(directory)["runs"] == plan["runs"]
        records = load(directory)
    planned = {run["run_id"]: run for run in plan["runs"]}
    assert records.runs["run_id"].tolist() == list(planned) and records.missing == 0
    for run in records.runs.to_dict("records"):
        own = planned[run["run_id"]]
        assert {name: run[name] for name in ("rule", "cell", "designs", "seed")} == {
            name: own[name] for name in ("rule", "cell", "designs", "seed")
        }
        assert {name: run[name] for name in plan["factors"]} == own["levels"]
    for table, columns in STORED.items():
        expected = tables[table].set_index("run_id").loc[list(planned)].reset_index()
        assert same(getattr(records, table)[list(columns)], expected)
