"""Sections and figures from outside the package: named as "my_module:my_section", or given as they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from alignkit.claims.analysis import Analysis
from alignkit.errors import ReportError
from alignkit.figures.chart import Chart, Drawing
from alignkit.report.section import Answer, Question
from alignkit.report.tables import Table
from alignkit.settings.modules import import_class, is_own, own_code
from alignkit.text import sentence

ANCHORS = ("verdicts", "recommendations", "figures", "effects", "final", "method", "diagnostics", "study")
"""What the page calls its own parts."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_WHERE = 'Expected "module:name" of an installed module, or of one in the current directory'

OwnSection = str | Question | Callable[[Analysis], Answer | None]
"""A section of one's own: its name, or the thing itself."""
OwnFigure = str | Drawing | Callable[[Analysis], Chart | None]


def questions(named: Sequence[OwnSection], *, taken: Iterable[str]) -> list[Question]:
    """The questions of sections of one's own; `taken` are the names that sections of the report already have."""
    found: list[Question] = []
    for given in _several("sections", named):
        what, thing = _found("section", given)
        if not isinstance(thing, Question):
            thing = Question(_function(thing, what, "a Question", "an Answer").__name__, _title(thing), thing)
        if not _NAME.fullmatch(thing.name) or thing.name in (*ANCHORS, *taken, *(other.name for other in found)):
            raise ReportError(
                f'{what}: expected a name of letters, digits, "_" and "-" that no other section has; got "{thing.name}"'
            )
        found.append(replace(thing, answer=_checked(given, what, thing.answer, Answer, _check_answer)))
    return found


def drawings(named: Sequence[OwnFigure]) -> list[Drawing]:
    """The drawings of figures of one's own."""
    found: list[Drawing] = []
    for given in _several("figures", named):
        what, thing = _found("figure", given)
        if not isinstance(thing, Drawing):
            thing = Drawing(_title(_function(thing, what, "a Drawing", "a Chart")), thing)
        found.append(replace(thing, draw=_checked(given, what, thing.draw, Chart, _check_chart)))
    return found


def require_different(kind: str, parts: Iterable[Chart | Table]) -> None:
    """Files and places in the page are called by these names."""
    twice = [name for name, n in Counter(part.name for part in parts).items() if n > 1]
    if twice:
        raise ReportError(
            f'expected {kind}s of different names; got "{twice[0]}" twice. Begin the names of your own with that of '
            "their section"
        )


def _several(what: str, named: Any) -> list[Any]:
    if isinstance(named, str) or not isinstance(named, Iterable):
        raise ReportError(f"{what}: expected a list of names or functions; got {named!r}. Write it as [...]")
    return list(named)


def _found(kind: str, given: Any) -> tuple[str, Any]:
    """What errors call it, and the thing itself."""
    if not isinstance(given, str):
        return f"{kind} {getattr(given, 'name', getattr(given, '__name__', given))}", given
    what = f'{kind} "{given}"'
    if not is_own(given):
        raise ReportError(f"{what}: expected a name of the form module:name. {_WHERE}")
    return what, import_class(given, what=what, where=_WHERE, error=ReportError)


def _function(thing: Any, what: str, container: str, result: str) -> Any:
    if not callable(thing) or isinstance(thing, type) or not hasattr(thing, "__name__"):
        raise ReportError(
            f"{what}: expected a function of an Analysis that gives {result}, or {container}; got {thing!r}"
        )
    return thing


def _title(function: Any) -> str:
    return sentence(function.__name__.replace("_", " "))


def _checked(given: Any, what: str, function: Any, kind: type, check: Callable[[str, Any], None]) -> Any:
    """The function with its result checked, and its failure told in one sentence where it is known by name alone."""

    def checked(*arguments: Any) -> Any:
        with own_code(given, what=what, error=ReportError):
            result = function(*arguments)
        if result is None:
            return None
        if not isinstance(result, kind):
            raise ReportError(f"{what}: expected {kind.__name__}(...) or None from it; got {type(result).__name__}")
        check(what, result)
        return result

    return checked


def _check_answer(what: str, answer: Answer) -> None:
    for kind, lines in (("sentences", answer.sentences), ("notes", answer.notes)):
        if isinstance(lines, str) or not all(isinstance(line, str) for line in lines):
            raise ReportError(f'{what}: {kind}: expected texts; got {lines!r}. Write them as ("...", "...")')
    for chart in answer.every_chart:
        _check_chart(what, chart)
    for table in answer.every_table:
        if not isinstance(table, Table):
            raise ReportError(f"{what}: tables: expected Table(...); got {type(table).__name__}")
        _check_name(what, "table", table.name)
        widths = {len(row) for row in table.rows} - {len(table.columns)}
        if widths or not all(isinstance(cell, str) for row in table.rows for cell in row):
            raise ReportError(
                f'{what}: table "{table.name}": expected rows of {len(table.columns)} texts, one for each column; got '
                f"{f'{widths.pop()}' if widths else 'other things than text'}"
            )
        if not isinstance(table.data, pd.DataFrame):
            raise ReportError(f'{what}: table "{table.name}": data: expected a pandas table; got {table.data!r}')


def _check_chart(what: str, chart: Chart) -> None:
    if not isinstance(chart, Chart):
        raise ReportError(f"{what}: charts: expected Chart(...); got {type(chart).__name__}")
    _check_name(what, "chart", chart.name)
    if not isinstance(chart.figure, Figure):
        raise ReportError(
            f'{what}: chart "{chart.name}": expected a matplotlib Figure; got {type(chart.figure).__name__}'
        )


def _check_name(what: str, kind: str, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ReportError(f'{what}: {kind}: expected a name of letters, digits, "_" and "-"; got {name!r}')
