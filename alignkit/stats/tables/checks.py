"""What every analysis asks of its arguments: columns, seeds, numbers, shares and p-values.

Each check raises `AnalysisError`, with what was expected, what came and the mend. The entrances of the
library call them, so that nothing behind an entrance has to ask again.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from alignkit.errors import AnalysisError, nearest, quoted, require_text


def names_of(what: str, names: Any) -> list[str]:
    """A list of different names; one name alone is a list of one.

    >>> names_of("within", "width"), names_of("within", ("width", "depth"))
    (['width'], ['width', 'depth'])
    """
    if isinstance(names, str):
        return [names]
    given = list(names) if isinstance(names, Iterable) else [names]
    if not all(isinstance(name, str) for name in given) or len(set(given)) < len(given):
        raise AnalysisError(f'{what}: expected different names, as text; got {names!r}. Write ["a", "b"]')
    return given


def levels_given(factor: str, levels: Any) -> list[Any]:
    """The levels that a call names; a text is one level and no list of its letters."""
    if isinstance(levels, str) or not isinstance(levels, Iterable):
        raise AnalysisError(f'factor "{factor}": expected a list of levels; got {levels!r}. Write ["before", "after"]')
    return list(levels)


def require_choice(what: str, value: Any, choices: Sequence[str]) -> None:
    """One of a few words."""
    if not isinstance(value, str) or value not in choices:
        words = [f'"{choice}"' for choice in choices]
        raise AnalysisError(f"expected {what} to be {', '.join(words[:-1])} or {words[-1]}; got {value!r}")


def require_number(what: str, value: Any) -> None:
    """A finite number."""
    if not is_number(value) or not np.isfinite(value):
        raise AnalysisError(f"{what}: expected a finite number; got {quoted(value)}. Write it as a number")


def require_count(what: str, value: Any, *, least: int = 1) -> None:
    """A whole number of at least `least`."""
    if not is_number(value) or not np.isfinite(value) or int(value) != value or value < least:
        raise AnalysisError(
            f"{what}: expected a whole number of at least {least}; got {quoted(value)}. Write {least} or more"
        )


def require_level(level: Any) -> None:
    """The level of an interval."""
    if not is_number(level) or not 0 < level < 1:
        raise AnalysisError(f"level: expected a share between 0 and 1; got {quoted(level)}. Write 0.95 for 95%")


def require_alpha(alpha: Any, *, below: float = 1.0) -> None:
    """The level of a test; that of two one-sided tests is below 0.5."""
    if not is_number(alpha) or not 0 < alpha < below:
        raise AnalysisError(f"alpha: expected a share between 0 and {below:g}; got {quoted(alpha)}. Write 0.05 for 5%")


def require_margin(margin: Any) -> None:
    """The smallest effect that matters, as a size."""
    if not is_number(margin) or not 0 < margin < np.inf:
        raise AnalysisError(
            f"expected a margin above 0, in the unit of the response; got {quoted(margin)}. "
            "State the smallest effect that matters"
        )


def p_values_of(p_values: Any) -> np.ndarray:
    """One p or more [..., family], each between 0 and 1 or missing."""
    try:
        p = np.asarray(p_values, dtype=float)
    except (TypeError, ValueError, OverflowError):
        p = np.zeros(())
    if p.ndim < 1:
        raise AnalysisError(f"expected a list of p-values; got {p_values!r}. Give numbers, NaN for a missing test")
    # Not >, so that a missing p passes.
    outside = (p < 0) | (p > 1)
    if outside.any():
        raise AnalysisError(
            f"expected p-values between 0 and 1, NaN for a missing test; got {p[outside][0]:g}. Give p-values, "
            "not test statistics or percentages"
        )
    return p


def differences_of(differences: Any) -> np.ndarray:
    """One difference per seed, NaN where it is missing."""
    try:
        values = np.asarray(differences)
    except ValueError:
        values = np.empty((0, 0))
    if values.ndim != 1:
        raise AnalysisError(
            f"expected a list with one difference per seed; got {differences!r}. Average what belongs to one seed"
        )
    return (
        _finite(values, "differences") if values.dtype.kind == "f" else number_column(pd.Series(values), "differences")
    )


def require_columns(table: Any, *names: Any) -> None:
    """A pandas table that has each of these columns once."""
    if not isinstance(table, pd.DataFrame):
        raise AnalysisError(f"expected a pandas table; got {type(table).__name__}. Make one with pandas.DataFrame(…)")
    for name in names:
        require_text("column", name)
        count = int((table.columns == name).sum())
        if not count:
            raise AnalysisError(f'expected a column "{name}"; {nearest(name, map(str, table.columns))}')
        if count > 1:
            raise AnalysisError(f'expected one column "{name}"; got {count}. Rename them')


def without_index_names(table: pd.DataFrame) -> pd.DataFrame:
    """The same rows under an index without names: pandas finds a column ambiguous that an index level is called after.

    >>> len(without_index_names(pd.DataFrame({"seed": [1]}, index=pd.Index([7], name="seed"))).groupby("seed"))
    1
    """
    plain = table.copy(deep=False)
    plain.index = table.index.set_names([None] * table.index.nlevels)
    return plain


def number_column(column: pd.Series, name: str) -> np.ndarray:
    """A column as floats, missing ones NaN. What is infinite or complex is not missing, and is refused."""
    return _finite(float_column(column, name), name)


def float_column(column: pd.Series, name: str) -> np.ndarray:
    """A column as floats, missing ones NaN and infinite ones as they are."""
    try:
        if pd.api.types.is_complex_dtype(column):
            raise TypeError
        return column.astype(float).to_numpy(dtype=float, na_value=np.nan)
    except OverflowError:
        raise AnalysisError(
            f'"{name}": expected numbers of at most {sys.float_info.max:.1e}; got larger whole numbers. Give it in '
            "another unit, or its logarithm"
        ) from None
    except (TypeError, ValueError):
        raise AnalysisError(
            f'"{name}": expected numbers; got a column of {column.dtype}. Convert it (in a model, a factor is named '
            "plainly)"
        ) from None


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise AnalysisError(
            f'"{name}": expected finite numbers, NaN for a missing one; got {infinite:,} infinite of {len(values):,}. '
            "Find where they come from, or set them to NaN if nothing was measured there"
        )
    return values.astype(float, copy=False)


def require_seed_column(column: pd.Series) -> None:
    """A seed in every row, all spelled alike."""
    missing = int(column.isna().sum())
    if missing:
        raise AnalysisError(
            f'expected a seed in every row; got {missing:,} rows without one in "{column.name}". '
            "Say which seed they are, or drop them"
        )
    if column.dtype != object and not pd.api.types.is_complex_dtype(column):
        return
    for value in column:
        if isinstance(value, Collection | complex) and not isinstance(value, str):
            raise AnalysisError(
                f'expected one number or text as the seed of a row; got {value!r} in "{column.name}". Give each seed '
                "rows of its own"
            )
    if len({isinstance(value, str) for value in column}) > 1:
        raise AnalysisError(
            f'expected seeds that are all numbers or all text; got both in "{column.name}". Convert the column: '
            '1 and "1" would count as two seeds'
        )


def is_number(value: Any) -> bool:
    """A number that a float can hold."""
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return False
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool | np.bool_)
