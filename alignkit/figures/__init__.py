"""The figures of a report: each function takes records or results and gives a matplotlib Figure."""

from alignkit.figures.alignment import (
    accuracy_gap_against_alignment,
    alignment_by_factor,
    alignment_over_training,
    width_curve,
)
from alignkit.figures.effects import forest
from alignkit.figures.style import RULE_COLOURS, rule_colour, save_figure, save_svg
from alignkit.records.rows import curves, final_values
from alignkit.text import ABSENT, MINUS, interval_text, row_label, signed

__all__ = [
    "ABSENT",
    "MINUS",
    "RULE_COLOURS",
    "accuracy_gap_against_alignment",
    "alignment_by_factor",
    "alignment_over_training",
    "curves",
    "final_values",
    "forest",
    "interval_text",
    "row_label",
    "rule_colour",
    "save_figure",
    "save_svg",
    "signed",
    "width_curve",
]
