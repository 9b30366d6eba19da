"""A level has one spelling, whatever type its column took on the way."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import example, given
from hypothesis import strategies as st

from alignkit.stats.tables.levels import level_column, level_order, level_text, numeric_levels

FINITE = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(-(2**53), 2**53)
WORDS = st.text(st.characters(codec="utf-8"), max_size=6)
NAMES = WORDS.filter(lambda text: not text.strip().startswith(("(", "[")))
MISSING = st.sampled_from([None, float("nan"), pd.NA, np.float64("nan")])
SCALARS = st.one_of(st.booleans(), WHOLE, st.floats(), WORDS)
MEMBERS = st.one_of(st.booleans(), WHOLE, st.floats(allow_nan=False), st.text("ab1 .-_é", max_size=4).filter(str.strip))
LISTS = st.recursive(
    MEMBERS, lambda parts: st.one_of(st.lists(parts, min_size=1, max_size=3), st.tuples(parts, parts)), max_leaves=4
)
LEVELS = st.one_of(SCALARS, LISTS, LISTS.map(str), MISSING)


@given(LEVELS)
@example("((8, 2), (8, 2))")
def test_a_spelling_is_spelled_as_itself(level: object) -> None:
    text = level_text(level)
    assert text is None or level_text(text) == text


@given(WHOLE)
def test_a_whole_number_is_spelled_alike_in_every_type(number: int) -> None:
    types = (int, float, str, np.int64, np.float64, lambda value: f" {value} ")
    assert len({level_text(kind(number)) for kind in types}) == 1


@given(FINITE)
def test_a_number_is_spelled_so_that_it_comes_back(number: float) -> None:
    text = level_text(number)
    assert text is not None and float(text) == number
    assert level_text(repr(number)) == level_text(np.float64(number)) == text
    assert numeric_levels([text]) == [number]


@given(st.one_of(MISSING, st.booleans(), NAMES))
def test_only_what_is_missing_has_no_spelling(level: object) -> None:
    assert (level_text(level) is None) == (not isinstance(level, (bool, str)))


@given(st.lists(st.one_of(WHOLE, FINITE, NAMES, st.booleans(), st.tuples(WHOLE, st.booleans())), max_size=4))
def test_a_list_is_spelled_by_its_members(members: list[object]) -> None:
    expected = "-".join(str(level_text(member)) for member in members)
    array = np.array([*members, None], dtype=object)[:-1]
    assert {level_text(kind) for kind in (members, tuple(members), array)} == {expected}


@given(LISTS)
@example([(8, 2), (8, 2)])
@example(["relu (slope 0.5)", "tanh"])
def test_a_list_that_became_text_is_spelled_as_the_list(members: object) -> None:
    if isinstance(members, (list, tuple)):
        assert level_text(str(members)) == level_text(members)


@given(st.lists(LEVELS, max_size=12))
@example([(1, 0), (True, False)])
def test_a_column_is_spelled_value_by_value(levels: list[object]) -> None:
    column = pd.Series(levels, dtype=object)
    found = level_column(column)
    assert found.tolist() == [level_text(level) for level in levels] and found.index.equals(column.index)


@given(st.lists(st.one_of(st.none(), st.integers(-9, 9)), max_size=12))
def test_the_type_of_a_column_does_not_show(numbers: list[int | None]) -> None:
    columns = [
        pd.Series(numbers, dtype=kind) for kind in ("object", "float64", "Int64", "Float64", "string", "category")
    ]
    spellings = [level_column(column).tolist() for column in columns]
    assert all(spelling == spellings[0] for spelling in spellings)
    assert len({tuple(level_order(column.array)) for column in columns}) == 1


@given(st.lists(LEVELS, max_size=8), st.randoms(use_true_random=False))
def test_an_order_has_every_level_once(levels: list[object], random) -> None:
    order = level_order(levels)
    assert len(set(order)) == len(order) and set(order) == {level_text(level) for level in levels} - {None}
    assert level_order(order) == order
    random.shuffle(levels)
    numbers = numeric_levels(order)
    if numbers is not None or set(order) <= {"false", "true"}:
        assert order == level_order(levels) and (numbers is None or numbers == sorted(numbers))
