"""What captions say alike: over which seeds and cells, and in which design."""

from __future__ import annotations

from alignkit.claims.analysis import Analysis
from alignkit.stats.tables.levels import level_order
from alignkit.text import count, listed


def seeds(analysis: Analysis) -> str:
    return count(analysis.n_seeds, "seed")


def cells(analysis: Analysis, design: str) -> str:
    return count(analysis.n_cells(design, analysis.rules[0]), "cell")


def where(analysis: Analysis, design: str) -> str:
    """The design in words: what varies in it."""
    varying = analysis.varying(analysis.rules[0], design)
    if not varying:
        return ""
    runs = analysis.runs_of(design=design)
    levels = f" ({len(level_order(runs[varying[0]]))} levels)" if len(varying) == 1 else ""
    return f"Design {design}: {listed(name.replace('_', ' ') for name in varying)}{levels}; {cells(analysis, design)}."
