"""A claim: a hypothesis declared before the runs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from alignkit.settings.types import Count, Name, Positive, Section
from alignkit.settings.validation import built


@built
class Claim(Section):
    """A hypothesis, declared before the runs: the effect of going from `levels[0]` to `levels[1]`.

    `response` is a measure, `<measure>_excess` (less that of the BP twin's bystander), an accuracy or
    `accuracy_gap` (to the BP twin), in points. One number stands for a run: of a measure, the value at the
    end of training (`summary` "final") or its average over training ("auc"), over all hidden layers
    (`layer` "mean") or in one. A confirmatory claim is tested in the family of all of them; an
    exploratory one suggests what to declare next.
    `smallest_effect` is in its unit. `practice` says in words what `levels[1]` asks a practitioner to do;
    with it, the report has a recommendation. Without `design`, the first that has both levels is taken.

    `moderators` are factors at whose levels the claim is judged apart: whether it turns over, or differs in size, is
    tested in the family. `failed` says what a run counts as that diverged (at every rate, where each seed tunes
    itself): "not_aligned", 90 degrees and chance accuracy, or the "worst_case" over all values that it could have."""

    name: Name
    statement: str
    practice: str = ""
    factor: str
    levels: tuple[Any, Any]
    response: str = "gradient_angle_deg"
    summary: Literal["final", "auc"] = "final"
    layer: Count | Literal["mean"] = "mean"
    direction: Literal["increase", "decrease"]
    smallest_effect: Positive
    family: Literal["confirmatory", "exploratory"] = "confirmatory"
    rule: str = "dfa"
    design: str | None = None
    moderators: tuple[str, ...] = ()
    failed: Literal["not_aligned", "worst_case"] = "not_aligned"

    @field_validator("levels")
    @classmethod
    def _levels_differ(cls, levels: tuple[Any, Any]) -> tuple[Any, Any]:
        if levels[0] == levels[1]:
            raise ValueError(f"expected two different levels, from and to; got {list(levels)}")
        return levels
