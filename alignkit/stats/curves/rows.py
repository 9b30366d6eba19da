"""The curves of runs over their checkpoints, checked: one value per run, layer and checkpoint."""

from __future__ import annotations

import pandas as pd

from alignkit.errors import AnalysisError
from alignkit.stats.tables.checks import float_column, without_index_names


def curve_rows(runs: pd.DataFrame, rows: pd.DataFrame, keys: list[str], time: str, response: str) -> pd.DataFrame:
    """The rows of these runs in order of time, without the checkpoints at which no run has a value.

    Each run of `runs` (by the first of `keys`) has a curve, and each curve (one per combination of `keys`) one row
    at a time: `AnalysisError` where that is not so.
    """
    run = keys[0]
    chosen = without_index_names(rows[rows[run].isin(runs[run])])
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
    chosen = chosen[defined]
    for name in (time, response):
        if chosen[name].dtype == object:
            chosen = chosen.assign(**{name: float_column(chosen[name], name)})
    return chosen.sort_values(time, kind="stable")
