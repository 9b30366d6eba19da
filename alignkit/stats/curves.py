"""The curves of runs over their checkpoints, checked: one value per run, layer and checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from alignkit.errors import AnalysisError, nearest


def curves(
    runs: pd.DataFrame, rows: pd.DataFrame, keys: list[str], time: str, response: str
) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Each curve in order of time, without the checkpoints at which no run has a value."""
    run = keys[0]
    chosen = rows[rows[run].isin(runs[run])]
    absent = len(runs) - chosen[run].nunique()
    if absent or runs[run].duplicated().any():
        raise AnalysisError(
            f"expected one row per run, and the curve of each; got {len(runs)} rows, {absent} of them without a curve. "
            "Give one row per run, and only runs that were measured"
        )
    repeated = chosen.duplicated([*keys, time])
    if repeated.any():
        at = chosen[repeated].iloc[0]
        raise AnalysisError(
            f"expected one value of {response} per {', '.join(keys)} and {time}; several at "
            f"{', '.join(f'{key} {at[key]}' for key in [*keys, time])}. Choose one signal"
        )
    defined = chosen[response].notna().groupby(chosen[time]).transform("any")
    if not defined.any():
        raise AnalysisError(f'expected values of "{response}"; it is undefined in every run. Choose another measure')
    yield from chosen[defined].sort_values(time, kind="stable").groupby(keys, sort=False)


def require_columns(table: pd.DataFrame, *columns: str) -> None:
    """Raise `AnalysisError` for the first of the columns that a table does not have."""
    for name in columns:
        if name not in table.columns:
            raise AnalysisError(f'expected a column "{name}"; {nearest(name, map(str, table.columns))}')
