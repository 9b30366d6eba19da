"""Factor levels as text, so that 64, 64.0, "64" and a column that a missing value made float agree."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from alignkit.errors import AnalysisError, quoted
from alignkit.stats.tables.checks import require_columns


def level_text(value: Any) -> str | None:
    """The one spelling of a level; None for a missing one.

    >>> [level_text(value) for value in (64, 64.0, "64", 0.10, True, "True", (8, 8), float("nan"))]
    ['64', '64', '64', '0.1', 'true', 'true', '8-8', None]
    """
    if value is None or value is pd.NA:
        return None
    if isinstance(value, (list, tuple, np.ndarray)):
        return _joined(value)
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in ("true", "false"):
            return text.lower()
        if text.startswith(("[", "(")) and text.endswith(("]", ")")):
            parts = [part.strip() for part in text[1:-1].split(",")]
            return _joined(part.strip("()[] ").strip("'\"") for part in parts if part)  # nested lists are one
        number = _number(text)
        return text if number is None else _number_text(number)
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return _whole_text(value)
    if isinstance(value, (int, float, np.integer, np.floating)):
        return None if value != value else _number_text(float(value))
    return str(value)


def level_column(column: pd.Series) -> pd.Series:
    """A column of levels as text, with None where a run does not have the factor.

    Raises `AnalysisError` for two levels of one type that differ in spelling alone, "1.1" and "1.10": merged they
    would be averaged without a word.
    """
    return pd.Series(_spelled(column.array, column.name), index=column.index, dtype=object, name=column.name)


def cell_column(table: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    """Each row's combination of levels as one text; the same for all rows where no factor is named.

    >>> cell_column(pd.DataFrame({"norm": ["none", "batch"], "width": [8, 8.0]}), ["norm", "width"]).nunique()
    2
    """
    texts = [level_column(table[name]).map(str) for name in names]
    cells = ["\x1f".join(levels) for levels in zip(*texts, strict=True)] if texts else [""] * len(table)
    return pd.Series(cells, index=table.index, dtype=object)


def level_order(values: Iterable[Any]) -> list[str]:
    """The distinct levels, missing ones left out: numbers ascending, false before true, else as they came.

    >>> level_order([256, 8, 64.0, None]), level_order(["tanh", "relu", "tanh"]), level_order([True, False])
    (['8', '64', '256'], ['tanh', 'relu'], ['false', 'true'])
    """
    name = getattr(values, "name", None)
    texts = list(dict.fromkeys(text for text in _spelled(values, name) if text is not None))
    if set(texts) == {"false", "true"}:
        return ["false", "true"]
    numbers = [_number(text) for text in texts]
    if all(number is not None for number in numbers):
        return [
            text for _, text in sorted(zip(numbers, texts, strict=True), key=lambda pair: (pair[0] or 0.0, pair[1]))
        ]
    return texts


def numeric_levels(levels: Iterable[str]) -> list[float] | None:
    """The levels as numbers, or None where one is not a number."""
    numbers = [_number(text) for text in levels]
    return None if any(number is None for number in numbers) else [float(number or 0.0) for number in numbers]


def _joined(values: Iterable[Any]) -> str:
    texts = [level_text(value) for value in values]
    return "-".join("none" if text is None else text for text in texts)


def _spelled(values: Iterable[Any], name: Any) -> list[str | None]:
    """`level_text` of each value; a column has few levels and many rows, so each is spelled once."""
    if isinstance(values, pd.api.extensions.ExtensionArray) and not pd.api.types.is_object_dtype(values.dtype):
        codes, levels = values.factorize()
        texts = [*(level_text(level) for level in levels), None]  # code -1: missing
        _require_apart(levels, texts, name)
        return [texts[code] for code in codes.tolist()]
    known: dict[tuple[type, Any], str | None] = {}
    distinct: list[Any] = []
    spelled = []
    for value in values:
        if isinstance(value, np.ndarray):
            spelled.append(level_text(value))
            continue
        # (1,) and (True,) would be one key, and a list is none.
        hashable = isinstance(value, Hashable) and not isinstance(value, tuple)
        key = (type(value), value if hashable else repr(value))
        if key not in known:
            known[key] = level_text(value)
            distinct.append(value)
        spelled.append(known[key])
    _require_apart(distinct, list(known.values()), name)
    return spelled


def _require_apart(levels: Iterable[Any], texts: Iterable[str | None], name: Any) -> None:
    """No two levels of one type have one spelling; of two types they may: 64 and "64" are the same level."""
    known: dict[tuple[type, str], Any] = {}
    for level, text in zip(levels, texts, strict=False):
        if text is None:
            continue
        other = known.setdefault((_kind(level), text), level)
        if other is not level and other != level:
            of = "" if name is None else f'"{name}": '
            raise AnalysisError(
                f"{of}expected levels that differ in more than their spelling; got {quoted(other)} and "
                f"{quoted(level)}, which would both count as {text}. Give one spelling to what is one level, and "
                "names to what are two"
            )


def _kind(level: Any) -> type:
    for kind in (bool, int, float):
        if isinstance(level, (kind, {bool: np.bool_, int: np.integer, float: np.floating}[kind])):
            return kind
    return type(level)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) and "_" not in text else None


def _whole_text(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # more digits than Python writes
        raise AnalysisError(
            f"expected levels that can be written; got {quoted(number)}. Give them names, or their logarithms"
        ) from None


def _number_text(number: float) -> str:
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def in_design(runs: pd.DataFrame, design: str) -> pd.Series:
    """Which runs belong to a design; `runs.designs` joins their names by +."""
    require_columns(runs, "designs")
    return runs["designs"].fillna("").map(lambda names: design in str(names).split("+")).astype(bool)
