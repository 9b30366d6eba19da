"""How a result becomes a row of a table."""

from __future__ import annotations

from typing import Any

import pandas as pd


def one_row(result: Any, *names: str, **instead: Any) -> pd.DataFrame:
    """One row of a result's attributes, in the order of `names`.

    "interval" becomes low and high, "levels" level_from and level_to, and "warnings" a text. `instead` gives
    values that are no attribute, by name.

    >>> from alignkit.stats.contrasts.paired import paired_test
    >>> one_row(paired_test([1.0, 2.0, 4.0]), "estimate", "p", label="mine").to_dict("records")
    [{'estimate': 2.3333333333333335, 'p': 0.25, 'label': 'mine'}]
    """
    row: dict[str, Any] = {}
    for name in dict.fromkeys([*names, *instead]):
        value = instead[name] if name in instead else getattr(result, name)
        if name == "interval":
            row |= {"low": value[0], "high": value[1]}
        elif name == "levels":
            row |= {"level_from": value[0], "level_to": value[1]}
        else:
            row[name] = "; ".join(value) if name == "warnings" else value
    return pd.DataFrame([row])
