"""A figure with its words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Chart:
    """A figure with its caption: `see` is its main message, `how` says what was drawn.

    `name` is that of its files and of its place in a page.
    """

    name: str
    title: str
    see: str
    how: str
    figure: Figure


@dataclass(frozen=True)
class Drawing:
    """What a figure is called, and the function of an `Analysis` that makes its `Chart`.

    `draw` gives None where the study does not ask for the figure, and raises `AnalysisError` where the records
    cannot carry it: the report then says why. With `each_rule` it takes a rule too, and is drawn for each whose
    factors have effects.
    """

    title: str
    draw: Callable[..., Chart | None]
    each_rule: bool = False


def drawing(title: str, *, each_rule: bool = False) -> Callable[[Callable[..., Chart | None]], Drawing]:
    """Make a function of an `Analysis` (and a rule, with `each_rule`) a figure of the report, called by this title.

    `write_report(records, out, figures=[...])` and `alignkit report DIR --figure my_module:my_figure` take what it
    makes.
    """
    return lambda draw: Drawing(title, draw, each_rule)
