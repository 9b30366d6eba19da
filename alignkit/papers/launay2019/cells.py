"""Numbers and names as the tables of the page show them."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from alignkit.text import ABSENT, interval_text, number, signed


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def effect_text(row: dict[str, Any], response: str) -> str:
    if not math.isfinite(row[response]):
        return ABSENT
    interval = (row[f"{response}_low"], row[f"{response}_high"])
    return f"{signed(row[response], 3)} {interval_text(interval, 3)}"


def cosine_text(value: float) -> str:
    """A cosine to three decimals, without the leading zero."""
    if not math.isfinite(value):
        return ABSENT
    return number(value, 3).replace("0.", ".", 1)


def words(name: object) -> str:
    return str(name).replace("_", " ")
