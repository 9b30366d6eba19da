"""The questions that a report goes into beyond verdicts, figures and effects, in reading order."""

from __future__ import annotations

from collections.abc import Sequence

from alignkit.claims.analysis import Analysis
from alignkit.errors import AnalysisError
from alignkit.report.section import Answer, Question
from alignkit.report.sections.cells import cells
from alignkit.report.sections.configurations import configurations
from alignkit.report.sections.dose import dose
from alignkit.report.sections.equal_loss import equal_loss
from alignkit.report.sections.mediation import mediation
from alignkit.report.sections.model import model
from alignkit.report.sections.model_comparison import model_comparison
from alignkit.report.sections.panels import panels
from alignkit.report.sections.phases import phases
from alignkit.report.sections.power import power
from alignkit.report.sections.rates import rates
from alignkit.report.sections.robustness import robustness, specifications
from alignkit.report.sections.stakes import stakes
from alignkit.report.sections.thresholds import thresholds
from alignkit.report.sections.variance import variance
from alignkit.report.sections.vital_signs import vital_signs

ALWAYS: tuple[Question, ...] = (
    Question("panels", "What the verdicts hang on", panels),
    Question("rates", "Over the learning rate", rates),
    Question("vital_signs", "Is there anything to measure?", vital_signs),
    Question("configurations", "Which configurations may be the best", configurations),
    Question("cells", "How far effects differ between cells", cells),
    Question("stakes", "What these angles are worth in accuracy", stakes),
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
    Question("matched", "At the same training loss", equal_loss),
    Question("mediation", "Does alignment carry the effect on accuracy?", mediation),
    Question("compared", "Does the model matter?", model_comparison),
    Question("specifications", "Does it matter how it is analysed?", specifications),
)
"""Those that take longer: `alignkit report DIR --full`."""


def answered(
    analysis: Analysis, *, full: bool, more: Sequence[Question] = ()
) -> tuple[list[tuple[Question, Answer]], list[str]]:
    """The sections that apply, `more` of them last, and a line for each question that the records cannot answer."""
    found: list[tuple[Question, Answer]] = []
    absent: list[str] = []
    for question in (*ALWAYS, *(FULL if full else ()), *more):
        try:
            answer = question.answer(analysis)
        except AnalysisError as error:
            absent.append(f"{question.title}: {error}.")
        else:
            if answer is not None:
                found.append((question, answer))
    return found, absent
