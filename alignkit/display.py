"""How results show themselves: a line where there is only text, a small table in a notebook."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, TypeVar

import pandas as pd

from alignkit.text import ABSENT, MINUS, change, change_interval, count, number, p_text, with_interval

Shown = TypeVar("Shown", bound=type)

MOST_ROWS = 20
MOST_COLUMNS = 14
"""A single row with more columns than this is turned into a column."""

_SUBJECT = ("claim", "test", "held", "event", "comparison", "dose", "mediator", "outcome", "response", "group")
_FINDING = ("best", "verdict", "status", "conclusion")
_APART = ("method", "warnings", "pairing_correlation")
_COLOURS = {
    "supported": "#2da44e", "confirmed": "#2da44e", "refuted": "#cf222e", "contradicted": "#cf222e",
    "equivalent": "#0969da", "robust": "#2da44e", "conditional": "#bf8700", "contested": "#cf222e",
}  # fmt: skip
# JupyterLab's own colours where there are any, and else the page's: so that light and dark both have contrast.
_STYLE = """<style>
div.alignkit-shown { font-size: var(--jp-ui-font-size1, 13px); line-height: 1.45; overflow-x: auto; color: var(--jp-content-font-color1, inherit); }
div.alignkit-shown table.alignkit-table { border-collapse: collapse; border: none; margin: 4px 0; table-layout: auto; font-size: inherit; font-variant-numeric: tabular-nums; }
div.alignkit-shown table.alignkit-table th, div.alignkit-shown table.alignkit-table td { padding: 3px 12px 3px 0; border: none; border-bottom: 1px solid rgba(128, 128, 128, .3); text-align: left; vertical-align: top; max-width: 36em; white-space: normal; }
div.alignkit-shown table.alignkit-table th { font-weight: 600; }
div.alignkit-shown table.alignkit-table .alignkit-number { text-align: right; white-space: nowrap; }
div.alignkit-shown .alignkit-badge { border-left: 4px solid rgba(128, 128, 128, .8); padding-left: 6px; white-space: nowrap; }
div.alignkit-shown .alignkit-note { opacity: .8; max-width: 60em; }
</style>"""  # noqa: E501


def shown(
    *, words: Callable[[Any], str] | None = None, table: str = "to_frame", in_response: bool = False
) -> Callable[[Shown], Shown]:
    """A decorator of a result's class: its repr is one line, and a notebook shows the table that `table` names.

    The line says of what, the estimate with its interval, p, and the seeds behind it, as far as the result has
    them; `words` says it otherwise. `in_response`: the estimate is a difference of the response, in its unit.

    >>> from dataclasses import dataclass
    >>> @shown()
    ... @dataclass(frozen=True)
    ... class Mean:
    ...     estimate: float
    ...     interval: tuple[float, float]
    ...     n_seeds: int
    >>> Mean(2.0, (1.0, 3.0), 8)
    Mean(2.00 [1.00, 3.00], 8 seeds)
    """

    def decorate(cls: Shown) -> Shown:
        def in_words(self: Any) -> str:
            return words(self) if words else _in_words(self, in_response)

        def line(self: Any) -> str:
            return f"{type(self).__name__}({in_words(self)})"

        def html(self: Any) -> str:
            return _html(self, in_words(self), getattr(self, table)())

        cls.__repr__ = line  # type: ignore[assignment]
        cls._repr_html_ = html  # type: ignore[attr-defined]
        return cls

    return decorate


def _in_words(result: Any, in_response: bool) -> str:
    head = ", ".join(part for part in (_of_what(result), _finding(result)) if part)
    parts = [_estimate(result, in_response), p_words(result), seeds_words(result)]
    if not parts[0]:
        parts.insert(0, _numbers(result))
    n = len(getattr(result, "warnings", ()))
    parts.append(count(n, "warning") if n else "")
    rest = ", ".join(part for part in parts if part)
    return ": ".join(part for part in (head, rest) if part)


def _of_what(result: Any) -> str:
    parts = []
    factor, levels = getattr(result, "factor", None), getattr(result, "levels", None)
    if isinstance(factor, str):
        pair = isinstance(levels, tuple) and len(levels) == 2 and all(isinstance(level, str) for level in levels)
        parts.append(f"{factor} {levels[0]} to {levels[1]}" if levels and pair else factor)
    for name in _SUBJECT:
        value = getattr(result, name, None)
        value = getattr(value, "name", value)  # a claim
        if isinstance(value, str) and value:
            parts.append(value)
    return ", ".join(parts)


def _finding(result: Any) -> str:
    return ", ".join(value for name in _FINDING if isinstance(value := getattr(result, name, None), str))


def _estimate(result: Any, in_response: bool) -> str:
    estimate, interval = getattr(result, "estimate", None), getattr(result, "interval", (math.nan, math.nan))
    if estimate is None:
        return ""
    if in_response:
        return effect_words(estimate, interval, result.response)
    digits = digits_for([estimate, *interval])
    text = _number(estimate, digits)
    return text if any(map(math.isnan, interval)) else f"{text} [{', '.join(_number(end, digits) for end in interval)}]"


def effect_words(estimate: float, interval: tuple[float, float], response: str) -> str:
    """A difference in a response with its interval, where there is one.

    >>> effect_words(-3.214, (-4.02, -2.4), "signal_angle_deg")
    '−3.2° [−4.0, −2.4]'
    """  # noqa: RUF002
    return with_interval(change(estimate, response), change_interval(interval, response))


def p_words(result: Any) -> str:
    """The p of a result, and the adjusted one where it is another."""
    p, adjusted = getattr(result, "p", None), getattr(result, "p_adjusted", math.nan)
    if not isinstance(p, float) or math.isnan(p):
        return ""
    return f"p {p_text(p)}" + ("" if math.isnan(adjusted) or adjusted == p else f" ({p_text(adjusted)} adjusted)")


def seeds_words(result: Any) -> str:
    n = getattr(result, "n_seeds", None)
    return count(n, "seed") if isinstance(n, int) else ""


def _numbers(result: Any) -> str:
    """The first numbers of a result that has no estimate, by name."""
    numbers = [
        f"{name} {_number(value, digits_for([value]))}"
        for name, value in vars(result).items()
        if isinstance(value, float) and not math.isnan(value)
    ]
    return ", ".join(numbers[:3])


def _html(result: Any, words: str, table: pd.DataFrame) -> str:
    """A result as a notebook shows it: the line, its table, how it was made, and what to know of it."""
    head = head_html(type(result).__name__, words)
    method, warnings = getattr(result, "method", ""), getattr(result, "warnings", ())
    said = {name for name in ("factor", "response") if isinstance(getattr(result, name, None), str)}
    columns = [name for name in table.columns if name not in {*_APART, *said}]
    return block(head, table_html(table[columns]), notes=[*([method] if isinstance(method, str) else []), *warnings])


def head_html(name: str, words: str) -> str:
    return f"<b>{escape(name)}</b> {escape(words)}"


def block(head: str, *parts: str, notes: Iterable[str] = ()) -> str:
    """HTML that stands alone: a head and parts that are HTML, and notes that are text."""
    below = "".join(f'<div class="alignkit-note">{escape(note)}</div>' for note in notes if note)
    return f'{_STYLE}<div class="alignkit-shown"><div>{head}</div>{"".join(parts)}{below}</div>'


def table_html(table: pd.DataFrame) -> str:
    """A table as HTML. A long one shows its first rows and says how many there are."""
    if len(table) == 1 and len(table.columns) > MOST_COLUMNS:
        rows = [(str(name), _text(name, table[name])[0]) for name in table.columns]
        return rows_html([(name, text) for name, text in rows if text not in ("", ABSENT)])
    first = table.head(MOST_ROWS)
    texts = {str(name): _text(name, first[name]) for name in first.columns}
    right = {str(name) for name in first.columns if _is_number(first[name])}
    shown_rows = rows_html(list(zip(*texts.values(), strict=True)), head=list(texts), right=right)
    more = len(table) - len(first)
    return shown_rows + (f'<div class="alignkit-note">and {count(more, "row")} more</div>' if more else "")


def rows_html(
    rows: Sequence[Sequence[str]],
    *,
    head: Sequence[str] = (),
    right: Iterable[str] = (),
    badge: str | Sequence[str] = (),
) -> str:
    """Rows of text as an HTML table. `right` names the columns of numbers, `badge` that of verdicts, or those."""
    badges = (badge,) if isinstance(badge, str) else badge
    classes = ["alignkit-number" if name in set(right) else "" for name in head]
    lines = ['<table class="alignkit-table">']
    if head:
        cells = "".join(_cell("th", name, style) for name, style in zip(head, classes, strict=True))
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    for row in rows:
        styles = classes or ["", *("" for _ in row[1:])]
        filled = [
            badge_html(text)
            if head and name in badges and text != ABSENT
            else _cell("td" if head or index else "th", text, style)
            for index, (text, style, name) in enumerate(zip(row, styles, head or row, strict=True))
        ]
        lines.append(f"<tr>{''.join(filled)}</tr>")
    return "".join([*lines, "</tbody></table>"])


def badge_html(verdict: str) -> str:
    """A cell that holds a verdict, in words and with its colour at the side."""
    colour = _COLOURS.get(verdict, "#8a9099")
    return f'<td><span class="alignkit-badge" style="border-left-color: {colour}">{escape(verdict)}</span></td>'


def tight(text: str) -> str:
    """A text that does not break: an estimate and its interval stay on one line of a table's cell."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _cell(tag: str, text: str, style: str) -> str:
    attribute = f' class="{style}"' if style else ""
    return f"<{tag}{attribute}>{escape(str(text))}</{tag}>"


def _is_number(column: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))


def _text(name: Any, column: pd.Series) -> list[str]:
    """A column's values as text, of one precision."""
    if not _is_number(column):
        return ["" if pd.api.types.is_scalar(value) and pd.isna(value) else str(value) for value in column]
    if pd.api.types.is_integer_dtype(column) and not column.isna().any():
        return [f"{value:,}" for value in column]
    if str(name) in ("p", "page_p") or str(name).startswith("p_"):
        return [p_text(float(value)) for value in column]
    column = column.astype(float)
    whole = all(float(value).is_integer() or math.isnan(value) for value in column)
    digits = 0 if whole else digits_for(column)
    return [_number(value, digits) for value in column]


def digits_for(values: Iterable[float]) -> int:
    """Decimals that leave the largest of the values three significant digits.

    >>> digits_for([-0.0123]), digits_for([72.4, 3.0]), digits_for([1234.5])
    (4, 1, 0)
    """
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 2 if largest == 0 else min(max(2 - math.floor(math.log10(largest)), 0), 8)


def _number(value: float, digits: int) -> str:
    return str(value).replace("-", MINUS) if math.isinf(value) else number(value, digits)


def pairs_html(pairs: Mapping[str, str]) -> str:
    """A table of names and what they are, without those that are empty."""
    return rows_html([(name, text) for name, text in pairs.items() if text])
