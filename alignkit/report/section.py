"""A section of the report: a question, and its answer in sentences with the tables and figures that carry it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from alignkit.claims.analysis import Analysis
from alignkit.figures.chart import Chart
from alignkit.report.tables import Table


@dataclass(frozen=True)
class Fold:
    """A part of a section that stays closed until it is asked for: what one claim's long table and figure say."""

    title: str
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a section of the report says.

    `sentences` are its finding; `notes` are what a reader must know to judge it: assumptions, what was left out and
    why. Tables and charts come in reading order; their names start with the section's. `folds` are the parts of which
    a reader needs one at a time; they come last.
    """

    sentences: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()
    folds: tuple[Fold, ...] = ()

    @property
    def every_table(self) -> tuple[Table, ...]:
        """The tables, folded ones too."""
        return (*self.tables, *(table for fold in self.folds for table in fold.tables))

    @property
    def every_chart(self) -> tuple[Chart, ...]:
        """The charts, folded ones too."""
        return (*self.charts, *(chart for fold in self.folds for chart in fold.charts))


@dataclass(frozen=True)
class Question:
    """A section's anchor, its heading, and the function of the analysis that answers it.

    `answer` gives None where the study does not pose the question, and raises `AnalysisError` where it does
    and the records cannot answer: the report then says why.
    """

    name: str
    title: str
    answer: Callable[[Analysis], Answer | None]


def question(title: str, *, name: str = "") -> Callable[[Callable[[Analysis], Answer | None]], Question]:
    """Make a function of an `Analysis` a section of the report, under this title.

    `name` is its anchor, the function's own unless another is given. `write_report(records, out, sections=[...])` and
    `alignkit report DIR --section my_module:my_section` take what it makes.
    """
    return lambda answer: Question(name or answer.__name__, title, answer)
