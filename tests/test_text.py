"""Numbers, lists and foreign words as text."""

from __future__ import annotations

import pandas as pd
import pytest

from alignkit.errors import has_control_characters, printable, quoted
from alignkit.text import for_spreadsheets


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-x", "@SUM(A1)", "\t=1", "\r=1", "-", "=cmd|'/c calc'!A0"])
def test_what_a_spreadsheet_would_run_is_marked_as_text(text):
    frame = pd.DataFrame({text: [text, "plain"], "n": [-1, 2]})
    marked = for_spreadsheets(frame)
    assert marked.columns.tolist() == [f"'{text}", "n"] and marked.iloc[:, 0].tolist() == [f"'{text}", "plain"]
    assert frame.columns[0] == text and frame.iloc[0, 0] == text


@pytest.mark.parametrize(
    "column",
    [["-0.5", "+1", "-1e-3", "-inf"], [-1.5, None, 2.0, 3.0], ["a=b", "x-y", "", None], [True, False, True, False]],
)
def test_numbers_and_ordinary_texts_stay(column):
    frame = pd.DataFrame({"a": column, "b": column}).rename(columns={"b": "a"})
    pd.testing.assert_frame_equal(for_spreadsheets(frame), frame)


def test_control_characters_are_written_and_not_obeyed():
    assert printable("a\x1b[31m\x07\x9b\ud800\ufffe") == "a\\x1b[31m\\x07\\x9b\\ud800\\ufffe"
    assert printable("a\n\tb é ° → 表") == "a\n\tb é ° → 表" and not has_control_characters("a\n\tb é")


def test_long_values_are_cut_in_messages():
    assert quoted([1] * 10_000).endswith("…") and len(quoted([1] * 10_000)) == 300
    assert quoted([10**5000]) == "a list" and quoted("a") == "'a'"
