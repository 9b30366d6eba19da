"""Whether a comparison is really one of learning rates."""

from __future__ import annotations

from typing import Any

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


def _spread(rates: pd.Series) -> str:
    if rates.nunique() == 1:
        return f"{rates.iloc[0]:g}"
    return f"{rates.median():g} ({rates.min():g} to {rates.max():g})"
