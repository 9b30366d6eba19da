"""Numbers and lists in words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from alignkit.columns import GAP, digits_of, unit_of

if TYPE_CHECKING:
    import pandas as pd


def p_text(p: float) -> str:
    """A p-value to three decimals, without the leading zero.

    >>> p_text(0.0312), p_text(0.0002), p_text(1.0)
    ('.031', '<.001', '1')
    """
    if not math.isfinite(p):
        return ABSENT
    if p < 0.001:
        return "<.001"
    return "1" if p >= 0.9995 else f"{p:.3f}"[1:]


def p_relation(p: float) -> str:
    """A p-value as it follows the letter.

    >>> f"p {p_relation(0.0312)}", f"p {p_relation(0.0002)}"
    ('p = .031', 'p < .001')
    """
    text = p_text(p)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"


def number(value: float, digits: int) -> str:
    """A number with a true minus, zero without one; a dash where it is missing."""
    if not math.isfinite(value):
        return ABSENT
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", MINUS)


def level(value: float, response: str) -> str:
    """A value of a response with its unit."""
    return number(value, digits_of(response)) + unit(response) if math.isfinite(value) else ABSENT


def reading(value: float, response: str) -> str:
    """A value as it is read off, not a difference: accuracies in %.

    >>> reading(95.93, "test_accuracy"), reading(60.12, "signal_angle_deg")
    ('95.93%', '60.1°')
    """
    if unit_of(response) != "points" or response == GAP or not math.isfinite(value):
        return level(value, response)
    return f"{number(value, digits_of(response))}%"


def change(value: float, response: str) -> str:
    """A difference in a response, with its sign and unit."""
    return signed(value, digits_of(response)) + unit(response) if math.isfinite(value) else ABSENT


def bare_change(value: float, response: str) -> str:
    """A difference without its unit, for a column whose head names it; degrees keep theirs."""
    return change(value, response) if unit_of(response) == "°" else signed(value, digits_of(response))


def in_unit(response: str) -> str:
    """The unit in brackets, for the head of a column of `bare_change`."""
    return f" ({unit_of(response)})" if unit_of(response) not in ("", "°") else ""


def change_interval(interval: tuple[float, float], response: str) -> str:
    return interval_text(interval, digits_of(response))


def level_interval(interval: tuple[float, float], response: str) -> str:
    if not all(map(math.isfinite, interval)):
        return ABSENT
    return f"[{number(interval[0], digits_of(response))}, {number(interval[1], digits_of(response))}]"


def with_interval(text: str, interval: str) -> str:
    """An estimate and its interval in a sentence; the estimate alone where there is none.

    >>> with_interval("60.1°", "[59.0, 61.2]"), with_interval("60.1°", ABSENT)
    ('60.1° [59.0, 61.2]', '60.1°')
    """
    return text if interval == ABSENT else f"{text} {interval}"


def sentence(text: str) -> str:
    """A text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def axis_unit(response: str) -> str:
    """The unit in brackets, for an axis: as `in_unit`, but degrees are said."""
    return " (degrees)" if unit_of(response) == "°" else in_unit(response)


def unit(response: str) -> str:
    """The unit as it follows a number."""
    return after_number(unit_of(response))


def after_number(unit: str) -> str:
    """A unit as it follows a number: degrees stand close."""
    return unit if unit in ("", "°") else f" {unit}"


def sized(value: float, unit: str) -> str:
    """A size with its unit.

    >>> sized(2.0, "°"), sized(1.0, "points"), sized(0.5, "points")
    ('2°', '1 point', '0.5 points')
    """
    return "1 point" if unit == "points" and value == 1 else f"{value:g}{after_number(unit)}"


def plural(n: int, noun: str, many: str = "") -> str:
    """A noun as a count has it."""
    return noun if n == 1 else many or f"{noun}s"


def count(n: int, noun: str, many: str = "") -> str:
    """A count with its noun: "1 run", "1,370 runs"."""
    return f"{n:,} {plural(n, noun, many)}"


def named(noun: str, names: Iterable[str]) -> str:
    """Things by name: "rule dfa", "rules bp, dfa and fa"."""
    each = list(names)
    return f"{plural(len(each), noun)} {listed(each)}"


def listed(items: Iterable[str]) -> str:
    """Items joined as in a sentence.

    >>> listed(["bp", "dfa", "fa"])
    'bp, dfa and fa'
    """
    words = list(items)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def slug(text: str) -> str:
    """A name for files and ids.

    >>> slug("mine:My Rule")
    'mine_my_rule'
    """
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def sizes(values: Iterable[int]) -> str:
    """Sizes as a list, or a range where there are many."""
    texts = [str(value) for value in values]
    return listed(texts) if len(texts) <= 4 else f"{texts[0]} to {texts[-1]}"


ABSENT, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def row_label(factor: str, levels: tuple[str, str]) -> str:
    """A contrast in words.

    >>> row_label("feedback_normalised", ("false", "true"))
    'feedback normalised: false → true'
    >>> row_label("feedback_angle_deg", ("0", "85"))
    'feedback angle: 0° → 85°'
    """
    name, unit = factor.removesuffix("_deg").replace("_", " "), "°" * factor.endswith("_deg")
    return f"{name}: {levels[0]}{unit} → {levels[1]}{unit}"


def signed(value: float, digits: int) -> str:
    """A number with its sign, and a true minus; a dash where it is missing.

    >>> signed(0.25, 1), signed(0.001, 1)
    ('+0.2', '0.0')
    """
    if not np.isfinite(value):
        return ABSENT
    text = f"{value:+.{digits}f}"
    return (text[1:] if float(text) == 0 else text).replace("-", MINUS)


def interval_text(interval: tuple[float, float], digits: int) -> str:
    """An interval in brackets; a dash where it is missing."""
    if not np.isfinite(interval).all():
        return ABSENT
    return f"[{signed(interval[0], digits)}, {signed(interval[1], digits)}]"


def rule_name(rule: str) -> str:
    """A rule as prose has it.

    >>> rule_name("dfa"), rule_name("imposed_angle")
    ('DFA', 'imposed angle')
    """
    shown = _OWN_RULES.get(rule, {}).get("display_name")
    if shown or ":" in rule:
        return shown or rule.partition(":")[2]
    return rule.upper() if rule in ("bp", "dfa", "fa") else rule.replace("_", " ")


_OWN_RULES: dict[str, dict[str, str]] = {}


def show_rules(own: Mapping[str, Mapping[str, str]]) -> None:
    """Take up how rules of the user's own call and colour themselves, as records have it."""
    _OWN_RULES.update({rule: dict(shown) for rule, shown in own.items()})


def own_colour(rule: str) -> str | None:
    """The colour that a rule of the user's own asks for."""
    return _OWN_RULES.get(rule, {}).get("colour")


def for_spreadsheets(frame: pd.DataFrame) -> pd.DataFrame:
    """A table for a CSV file: an apostrophe in front of each text that a spreadsheet would run as a formula.

    >>> import pandas as pd
    >>> for_spreadsheets(pd.DataFrame({"norm": ["=1+1", "-0.5", "batch"]}))["norm"].tolist()
    ["'=1+1", '-0.5', 'batch']
    """
    safe = frame.copy(deep=False)
    for place in range(len(frame.columns)):
        column = frame.iloc[:, place]
        if column.dtype.kind in "biufcmM":
            continue
        marked = {text: _as_text(text) for text in column.unique().tolist() if _as_text(text) != text}
        if marked:
            safe.isetitem(place, [marked.get(text, text) for text in column.tolist()])
    safe.columns = [_as_text(name) for name in frame.columns]
    return safe


def _as_text(value: Any) -> Any:
    if not isinstance(value, str) or value[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def in_markdown(text: str) -> str:
    """A text of somebody's within a line of Markdown: no tag, no link and no line of its own.

    >>> print(in_markdown("ReLU [0.1, 0.4], p <.001 <script>: [here](javascript:x)"))
    ReLU [0.1, 0.4], p <.001 \\<script>: [here\\](javascript:x)
    """
    line = re.sub(r"\s*[\r\n]+\s*", " ", text.replace("\\", r"\\"))
    return re.sub(r"<(?=[A-Za-z/!?])|\](?=\()", r"\\\g<0>", line)
