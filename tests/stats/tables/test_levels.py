"""Levels that only their spelling tells apart are refused, where a table holds them and where a study names them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from alignkit.claims.compare import compare
from alignkit.claims.fit import fit
from alignkit.errors import AnalysisError
from alignkit.stats.tables.levels import level_column, level_order

ALIKE = [("1.1", "1.10"), ("true", "True"), (2**53, 2**53 + 1), ("8", "8.0"), ("none", " none"), ("(8, 2)", "8-2")]


def table(first: Any, second: Any, dtype: Any = object) -> pd.DataFrame:
    rows = [
        (seed, level, 60 + seed % 3 + number) for seed in range(8) for number, level in enumerate((first, second, "c"))
    ]
    frame = pd.DataFrame(rows, columns=["seed", "norm", "value"])
    if dtype is not object:
        frame = frame[frame["norm"].map(lambda level: level != "c")]
    return frame.assign(norm=frame["norm"].astype(dtype))


@pytest.mark.parametrize(("first", "second"), ALIKE)
def test_levels_that_differ_in_spelling_alone_are_refused(first: Any, second: Any) -> None:
    message = (
        rf'"norm": .*differ in more than their spelling; got {re.escape(repr(first))} and {re.escape(repr(second))}'
    )
    for call in (compare, fit):
        with pytest.raises(AnalysisError, match=message):
            call(table(first, second), **({"factor": "norm"} if call is compare else {"model": "norm"}))
    with pytest.raises(AnalysisError, match="spelling"):
        level_order([first, second])


@pytest.mark.parametrize(
    ("levels", "dtype"),
    [
        (("1.1", "1.10"), "string"),
        (("1.1", "1.10"), "category"),
        ((2**53, 2**53 + 1), "int64"),
        ((2**53, 2**53 + 1), "Int64"),
    ],
)
def test_so_are_those_of_typed_columns(levels: tuple[Any, Any], dtype: str) -> None:
    with pytest.raises(AnalysisError, match="spelling"):
        compare(table(*levels, dtype), factor="norm")


def test_factors_that_are_no_subject_of_the_comparison_are_read_alike() -> None:
    rows = table("1.1", "1.10").assign(width=lambda rows: rows.pop("norm"))
    both = pd.concat([rows.assign(norm="a"), rows.assign(norm="b", value=rows["value"] * 1.1)])
    for options in ({"by": "width"}, {"within": ["width"]}):
        with pytest.raises(AnalysisError, match=r"'1\.1' and '1\.10'"):
            compare(both, factor="norm", **options)  # type: ignore[arg-type]  # either of two options


def test_one_level_of_several_types_stays_one() -> None:
    column = pd.Series(
        [64, 64.0, "64", np.int64(64), np.float32(64), True, "True", (8, 2), [8, 2], np.array([8, 2]), None]
    )
    assert level_column(column).tolist() == ["64"] * 5 + ["true"] * 2 + ["8-2"] * 3 + [None]
