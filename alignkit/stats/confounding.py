"""Whether a comparison is really one of learning rates, or of step lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from alignkit.stats.levels import level_column, level_text


def rate_note(
    table: pd.DataFrame,
    *,
    factor: str,
    levels: tuple[Any, Any],
    tuned: bool,
    rates: tuple[str, ...] = ("lr", "output_lr"),
) -> str:
    """A sentence that says how the learning rates of two levels differ; empty where they do not.

    `table` has one row per run. `tuned` says whether each arm's rate was tuned for it. A factor that is
    itself a rate confounds nothing.

    >>> table = pd.DataFrame({"norm": ["none", "batch"], "lr": [0.1, 0.03]})
    >>> rate_note(table, factor="norm", levels=("none", "batch"), tuned=True)
    "confounded with the learning rate: lr 0.1 vs 0.03, each arm's own tuned rate"
    """
    at = level_column(table[factor])
    parts = []
    for rate in rates:
        if rate == factor or rate not in table.columns:
            continue
        arms = [table.loc[at == level_text(level), rate].dropna() for level in levels]
        if arms[0].empty or arms[1].empty:
            continue
        shares = [arm.value_counts(normalize=True).sort_index().round(9) for arm in arms]
        if shares[0].equals(shares[1]):
            continue
        parts.append(f"{rate} {_spread(arms[0])} vs {_spread(arms[1])}")
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
    at = level_column(table[factor])
    lengths = table[step].where(table[step] > 0)
    low, high = (float(np.log(lengths[at == level_text(level)].dropna()).mean()) for level in levels)
    ratio = float(np.exp(abs(high - low)))
    if not ratio > threshold:
        return ""
    longer, shorter = (levels[1], levels[0]) if high > low else (levels[0], levels[1])
    return (
        f"confounded with the step length: |dW|/|W| is {ratio:.2g} times longer at {level_text(longer)} "
        f"than at {level_text(shorter)}"
    )


def _spread(rates: pd.Series) -> str:
    if rates.nunique() == 1:
        return f"{rates.iloc[0]:g}"
    return f"{rates.median():g} ({rates.min():g} to {rates.max():g})"
