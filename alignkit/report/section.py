"""A section of the report: a question, its answer in sentences, and the tables and figures that carry it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from alignkit.report.analysis import Analysis
from alignkit.report.charts import Chart
from alignkit.report.tables import Table


@dataclass(frozen=True)
class Section:
    """What a part of the report says.

    `answer` is its finding in a few sentences; `notes` are what a reader must know to judge it: assumptions,
    what was left out and why. Tables and charts come in reading order; their names start with the section's.
    """

    answer: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """A section's anchor, its heading, and the function of the analysis that answers it.

    `answer` gives None where the study does not pose the question, and raises `AnalysisError` where it does
    and the records cannot answer: the report then says why.
    """

    name: str
    title: str
    answer: Callable[[Analysis], Section | None]
