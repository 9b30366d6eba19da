"""Measures of the user's own, as far as their declarations go: read without torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alignkit.columns import CHECKPOINTS, EXCESS, GAP, LAYERS, RUNS, Column
from alignkit.errors import StudyError
from alignkit.settings.modules import import_class

BASE = "alignkit.measures.measure.Measure"
NEEDS = {"signals": "of_signals", "deltas": "of_deltas", "network": "of_network", "step": "of_step"}
"""What a measure may need, and the method that gets it."""


def own_columns(names: Iterable[str]) -> dict[str, tuple[Column, ...]]:
    """The columns that measures of the user's own declare, by the measure's name.

    Raises
    ------
    StudyError : a module cannot be imported, or its class is no measure; two measures have a column of one name.
    """
    found: dict[str, tuple[Column, ...]] = {}
    owners = dict.fromkeys((*RUNS, *CHECKPOINTS, *LAYERS, GAP), "alignkit")
    for name in dict.fromkeys(names):
        found[name] = _declared(name)
        for column in found[name]:
            if column.name in owners:
                raise StudyError(
                    f'measure "{name}": expected columns with names of their own; got "{column.name}", which '
                    f"{owners[column.name]} has. Rename it"
                )
            owners[column.name] = f'measure "{name}"'
    return found


def _declared(name: str) -> tuple[Column, ...]:
    what = f'measure "{name}"'
    measure = import_class(name, what=what)
    bases = [f"{base.__module__}.{base.__qualname__}" for base in getattr(measure, "__mro__", ())]
    if BASE not in bases:
        raise StudyError(f"{what}: expected a subclass of {BASE}; got {measure!r}")
    _check_needs(what, measure)
    columns = measure.columns
    if not isinstance(columns, tuple) or not columns or not all(isinstance(each, Column) for each in columns):
        raise StudyError(
            f"{what}: expected columns = (Column(...), ...) of one or more alignkit.columns.Column; got {columns!r}"
        )
    for column in columns:
        _check_column(what, column)
    return columns


def _check_needs(what: str, measure: Any) -> None:
    needs, base = measure.needs, next(each for each in measure.__mro__ if each.__qualname__ == "Measure")
    if not isinstance(needs, tuple) or not needs or not set(needs) <= set(NEEDS):
        raise StudyError(f"{what}: expected needs = a tuple of one or more of {', '.join(NEEDS)}; got {needs!r}")
    if "step" in needs and len(needs) > 1:
        raise StudyError(f'{what}: expected "step" to be the only need, as it is of another pass; got {needs!r}')
    for need in needs:
        if getattr(measure, NEEDS[need]) is getattr(base, NEEDS[need]):
            raise StudyError(f'{what}: it needs "{need}", and does not define {NEEDS[need]}. Define it')


def _check_column(what: str, column: Column) -> None:
    name = column.name
    if not isinstance(name, str) or not (name.isidentifier() and name.isascii()) or name.endswith(EXCESS):
        raise StudyError(
            f"{what}: expected a column's name of letters, digits and underscores, not ending in {EXCESS}; got {name!r}"
        )
    digits = column.digits
    for key, value, fits in (
        ("meaning", column.meaning, isinstance(column.meaning, str) and column.meaning.strip()),
        ("label", column.label, isinstance(column.label, str)),
        ("unit", column.unit, column.unit in ("", "°")),
        ("better", column.better, column.better in ("", "higher", "lower")),
        ("digits", digits, digits is None or (type(digits) is int and 0 <= digits <= 12)),
        ("kind", column.kind, column.kind == "float64"),
    ):
        if not fits:
            raise StudyError(f"{what}: column {name}: expected {_EXPECTED[key]}; got {key} = {value!r}")


_EXPECTED = {
    "meaning": "its definition in words",
    "label": "its name in words, or nothing",
    "unit": '"°", or "" for a pure number',
    "better": '"higher", "lower" or ""',
    "digits": "a number of decimals, 0 to 12",
    "kind": '"float64"',
}
