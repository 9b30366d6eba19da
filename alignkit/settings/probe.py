"""The section `[probe]`: what is measured, when and on what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from alignkit.columns import ANGLES, MEASURES
from alignkit.errors import nearest
from alignkit.settings.modules import is_own
from alignkit.settings.types import Flag, Index, Section


class ProbeOptions(Section):
    """What is measured, when and on what: the first `samples` of the split (`draw` 1 takes the next ones,
    and so on: the control for the draw of the probe). Checkpoints: step 0 (with `start`), `log_steps` log-spaced steps within the
    first epoch, every `every_epochs` epochs (0: none), the listed `steps`, and the end. `mode` "batch"
    uses the statistics of the probe batch with dropout off; "eval" and "train" are the network's own.

    Both signals come from one pass under the same masks. `reference_mode` takes the BP signal from a second pass in
    another mode, and `reference_masks` under other masks of frozen weights and signals ("independent") or none. Both
    are defects that published measurements have, kept to show what they do: angles then hold the difference of two
    networks as well, and `output_cosine` is no longer 1. The report says so.

    `evaluation_samples` caps each split's samples for the losses and accuracies of checkpoints (0: all);
    those of the end are over every sample. `chance` "auto" takes the closed form for Gaussian feedback
    and `redraws` draws from other laws.

    `measures` names groups of columns: all of alignkit's own, its angles, or a list, in which "module:Class" is a
    measure of one's own (`measures/measure.py`)."""

    split: Literal["test", "validation", "train"] = "test"
    samples: Annotated[int, Field(strict=True, ge=2, le=10_000_000)] = 128
    draw: Index = 0
    mode: Literal["batch", "eval", "train"] = "batch"
    reference_mode: Literal["batch", "eval", "train"] | None = None
    reference_masks: Literal["shared", "none", "independent"] = "shared"
    measures: Literal["all", "angles"] | tuple[str, ...] = "all"
    start: Flag = True
    log_steps: Index = 6
    every_epochs: Index = 1
    steps: tuple[Index, ...] = ()
    evaluation_samples: Index = 1000
    chance: Literal["auto", "redraw"] = "auto"
    redraws: Annotated[int, Field(strict=True, ge=20, le=10_000_000)] = 200

    @field_validator("measures")
    @classmethod
    def _measures_exist(cls, measures: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(measures, tuple):
            for name in measures:
                if name not in MEASURES and not is_own(name):
                    raise ValueError(
                        f'no group of measures is called "{name}"; {nearest(name, MEASURES)}, or "module:Class" for '
                        "one of your own"
                    )
            if len(set(measures)) != len(measures):
                raise ValueError(f"expected different measures; got {list(measures)}. Name each once")
        return measures

    @property
    def groups(self) -> frozenset[str]:
        if self.measures == "all":
            return frozenset(MEASURES)
        return frozenset(ANGLES if self.measures == "angles" else self.measures)

    @property
    def own_measures(self) -> tuple[str, ...]:
        """The measures of the user's own, in the order in which the study names them."""
        return tuple(name for name in self.measures if is_own(name)) if isinstance(self.measures, tuple) else ()
