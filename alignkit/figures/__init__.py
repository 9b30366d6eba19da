"""The figures of a report, a file each: from a tidy table to a matplotlib Figure.

Every file also has a `chart`, which gives its figure the caption that it has in a report.
"""

from alignkit.figures.accuracy_gap import accuracy_gap_against_alignment
from alignkit.figures.by_factor import alignment_by_factor, means_by_level
from alignkit.figures.chart import Chart, Drawing
from alignkit.figures.dose import dose_curves
from alignkit.figures.effects import forest
from alignkit.figures.marginal_means import marginal_effects
from alignkit.figures.phases import phase_spans
from alignkit.figures.specifications import specification_strips
from alignkit.figures.style import RULE_COLOURS, rule_colour, save_figure, save_svg
from alignkit.figures.terms import explained
from alignkit.figures.thresholds import threshold_curves
from alignkit.figures.training import alignment_over_training
from alignkit.figures.variance import variance_shares
from alignkit.figures.width import width_curve

__all__ = [
    "RULE_COLOURS",
    "Chart",
    "Drawing",
    "accuracy_gap_against_alignment",
    "alignment_by_factor",
    "alignment_over_training",
    "dose_curves",
    "explained",
    "forest",
    "marginal_effects",
    "means_by_level",
    "phase_spans",
    "rule_colour",
    "save_figure",
    "save_svg",
    "specification_strips",
    "threshold_curves",
    "variance_shares",
    "width_curve",
]
