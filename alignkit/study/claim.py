"""A claim: a hypothesis declared before the runs."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import field_validator

from alignkit.errors import quoted
from alignkit.settings.types import Count, Name, Positive, ProbeMode, Section
from alignkit.settings.validation import built

Layer = int | str
"""A hidden layer from the input (1, 2, …), the mean over all, or one from an end: "first", "last", "last-1", …"""
LAYER_NAMES = (
    'the number of a hidden layer from the input (1, 2, …), "mean", "first", "last", or "last-1", "last-2", … '
    "counted from the output"
)


def is_layer_name(layer: str) -> bool:
    """Whether it names a hidden layer by its place from an end.

    >>> [name for name in ("first", "last", "last-1", "last-0", "1") if is_layer_name(name)]
    ['first', 'last', 'last-1']
    """
    return re.fullmatch(r"first|last(-[1-9][0-9]{0,3})?", layer) is not None


def layer_number(layer: Layer, depth: int) -> int:
    """The number, from the input, of the layer that is meant in a network of so many hidden layers; below 1 where it
    has too few.

    >>> layer_number("last", 4), layer_number("last-1", 4), layer_number("last-4", 4)
    (4, 3, 0)
    """
    if isinstance(layer, int):
        return layer
    return 1 if layer == "first" else depth - int(layer.removeprefix("last").removeprefix("-") or 0)


@built
class Claim(Section):
    """A hypothesis, declared before the runs: the effect of going from `levels[0]` to `levels[1]`.

    `response` is a measure, `<measure>_excess` (less that of the BP twin's bystander), an accuracy or
    `accuracy_gap` (to the BP twin), in points. One number stands for a run: of a measure, the value at the
    end of training (`summary` "final") or its average over training ("auc"), over all hidden layers
    (`layer` "mean") or in one: 1, 2, … from the input, "first", "last", or "last-1", "last-2", … from each network's
    output. It is measured in the study's first mode, or in another that the study measures (`mode`). A
    confirmatory claim is tested in the family of all of them; an exploratory one suggests what to declare next.
    `smallest_effect` is in its unit. `practice` says in words what `levels[1]` asks a practitioner to do;
    with it, the report has a recommendation. Without `design`, the first that has both levels is taken.

    `moderators` are factors at whose levels the claim is judged apart: whether it turns over, or differs in size, is
    tested in the family. `failed` says what a run counts as that diverged (at every rate, where each seed tunes
    itself) or died, so that its signals are all zero: "not_aligned", 90 degrees and chance accuracy, or the
    "worst_case" over all values that it could have."""

    name: Name
    statement: str
    practice: str = ""
    factor: str
    levels: tuple[Any, Any]
    response: str = "gradient_angle_deg"
    summary: Literal["final", "auc"] = "final"
    layer: Count | str = "mean"
    mode: ProbeMode | None = None
    direction: Literal["increase", "decrease"]
    smallest_effect: Positive
    family: Literal["confirmatory", "exploratory"] = "confirmatory"
    rule: str = "dfa"
    design: str | None = None
    moderators: tuple[str, ...] = ()
    failed: Literal["not_aligned", "worst_case"] = "not_aligned"

    @field_validator("layer")
    @classmethod
    def _layer_can_be_found(cls, layer: Layer) -> Layer:
        if isinstance(layer, str) and layer != "mean" and not is_layer_name(layer):
            raise ValueError(f"expected {LAYER_NAMES}; got {quoted(layer)}")
        return layer

    @field_validator("levels")
    @classmethod
    def _levels_differ(cls, levels: tuple[Any, Any]) -> tuple[Any, Any]:
        if levels[0] == levels[1]:
            raise ValueError(f"expected two different levels, from and to; got {list(levels)}")
        return levels
