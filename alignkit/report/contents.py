"""The questions that a report goes into beyond verdicts, figures and effects, in reading order."""

from __future__ import annotations

from alignkit.errors import AnalysisError
from alignkit.report.analysis import Analysis
from alignkit.report.section import Question, Section
from alignkit.report.sections.compared import compared
from alignkit.report.sections.dose import dose
from alignkit.report.sections.matched import matched
from alignkit.report.sections.mediation import mediation
from alignkit.report.sections.model import model
from alignkit.report.sections.phases import phases
from alignkit.report.sections.power import power
from alignkit.report.sections.robustness import robustness, specifications
from alignkit.report.sections.thresholds import thresholds
from alignkit.report.sections.variance import variance

ALWAYS: tuple[Question, ...] = (
    Question("model", "What alignment depends on", model),
    Question("phases", "When alignment comes", phases),
    Question("thresholds", "Is there a width below which alignment fails?", thresholds),
    Question("dose", "Does an angle cost accuracy? What imposing it shows", dose),
    Question("variance", "Where the spread comes from", variance),
    Question("robustness", "Do the verdicts hold up?", robustness),
    Question("power", "What these seeds could show", power),
)
"""Answered in every report: together they take seconds."""

FULL: tuple[Question, ...] = (
    Question("matched", "At the same training loss", matched),
    Question("mediation", "Does alignment carry the effect on accuracy?", mediation),
    Question("compared", "Does the model matter?", compared),
    Question("specifications", "Does it matter how it is analysed?", specifications),
)
"""Those that take longer: `alignkit report DIR --full`."""


def answered(analysis: Analysis, *, full: bool) -> tuple[list[tuple[Question, Section]], list[str]]:
    """The sections that apply, and a line for each question that the records cannot answer."""
    found: list[tuple[Question, Section]] = []
    absent: list[str] = []
    for question in (*ALWAYS, *(FULL if full else ())):
        try:
            section = question.answer(analysis)
        except AnalysisError as error:
            absent.append(f"{question.title}: {error}.")
        else:
            if section is not None:
                found.append((question, section))
    return found, absent
