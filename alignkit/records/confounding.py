"""Whether a comparison is really one of learning rates, or of step lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from alignkit.stats.tables.checks import float_column, require_columns
from alignkit.stats.tables.levels import cell_column, level_column, level_text


def rate_note(
    table: pd.DataFrame,
    *,
    factor: str,
    levels: tuple[Any, Any],
    tuned: bool,
    within: Sequence[str] = (),
    rates: tuple[str, ...] = ("lr", "output_lr"),
) -> str:
    """A sentence that says how the learning rates of two levels differ; empty where they do not.

    `table` has one row per run. Rates are compared by the geometric mean of their ratios over matched cells,
    combinations of the other factors `within` that both levels have (or, where they share none, over all of
    either's). A ratio of 1, to two digits, is none. `tuned` says whether each arm's rate was tuned for it. A factor
    that is itself a rate confounds nothing.

    >>> table = pd.DataFrame({"norm": ["none", "batch"], "lr": [0.1, 0.03]})
    >>> rate_note(table, factor="norm", levels=("none", "batch"), tuned=True)
    "confounded with the learning rate: lr 0.1 vs 0.03, each arm's own tuned rate"
    """
    require_columns(table, factor)
    at = level_column(table[factor])
    low, high = (str(level_text(level)) for level in levels)
    cell = cell_column(table, [name for name in within if name != factor])
    parts = []
    for rate in rates:
        if rate == factor or rate not in table.columns:
            continue
        values = pd.Series(float_column(table[rate], rate), table.index)
        arms = [values[at == level].dropna() for level in (low, high)]
        if any(arm.empty for arm in arms):
            continue
        if all(arm.nunique() == 1 for arm in arms):
            if arms[0].iloc[0] != arms[1].iloc[0]:
                parts.append(f"{rate} {arms[0].iloc[0]:g} vs {arms[1].iloc[0]:g}")
            continue
        log = pd.Series(np.log(np.where(values > 0, values, np.nan)), table.index)
        logs = log.groupby([pd.Series(cell, table.index), at]).mean().unstack()
        matched = logs.dropna(subset=[low, high])
        means = (matched if len(matched) else logs).mean()
        ratio = f"{float(np.exp(abs(means[high] - means[low]))):.2g}"
        if ratio not in ("1", "nan"):
            larger, other = (high, low) if means[high] > means[low] else (low, high)
            parts.append(f"{rate} is on average {ratio} times larger at {larger} than at {other}")
    if not parts:
        return ""
    return f"confounded with the learning rate: {', '.join(parts)}, " + (
        "each arm's own tuned rate" if tuned else "as the study sets them"
    )


def step_note(
    table: pd.DataFrame, *, factor: str, levels: tuple[Any, Any], step: str = "value", threshold: float = 2.0
) -> str:
    """A sentence for two levels whose updates differ in length by more than `threshold` times; else empty.

    Equal learning rates do not make equal steps: feedback that is not normalised, for one, can make the
    updates of the hidden layers many times longer. `table[step]` is each run's relative step length,
    |dW| / |W|; the levels are compared by their geometric means.

    >>> table = pd.DataFrame({"normalised": [False, True], "value": [0.08, 0.01]})
    >>> step_note(table, factor="normalised", levels=(False, True))
    'confounded with the step length: |dW|/|W| is 8 times longer at false than at true'
    """
    require_columns(table, factor, step)
    at = level_column(table[factor])
    lengths = pd.Series(float_column(table[step], step), table.index)
    lengths = lengths.where(lengths > 0)
    low, high = (float(np.log(lengths[at == level_text(level)].dropna()).mean()) for level in levels)
    ratio = float(np.exp(abs(high - low)))
    if not ratio > threshold:
        return ""
    longer, shorter = (levels[1], levels[0]) if high > low else (levels[0], levels[1])
    return (
        f"confounded with the step length: |dW|/|W| is {ratio:.2g} times longer at {level_text(longer)} "
        f"than at {level_text(shorter)}"
    )
