"""The section `[probe]`: what is measured, when and on what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from alignkit.columns import ANGLES, MEASURES
from alignkit.errors import nearest
from alignkit.settings.modules import is_own
from alignkit.settings.types import Flag, Index, ProbeMode, Section


class ProbeOptions(Section):
    """What is measured, when and on what: the first `samples` of the split (`draw` 1 takes the next ones,
    and so on: the control for the draw of the probe). Checkpoints: step 0 (with `start`), `log_steps` log-spaced steps
    within the first epoch, every `every_epochs` epochs (0: none), the listed `steps`, and the end. `mode` "batch"
    uses the statistics of the probe batch with dropout off; "eval" and "train" are the network's own. `modes` lists
    several, the first of which is `mode`: those after it are measured at the end, or at "all" checkpoints (`modes_at`).

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
    mode: ProbeMode = "batch"
    modes: tuple[ProbeMode, ...] = ()
    modes_at: Literal["end", "all"] = "end"
    reference_mode: ProbeMode | None = None
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

    @field_validator("modes")
    @classmethod
    def _modes_differ(cls, modes: tuple[str, ...]) -> tuple[str, ...]:
        if not modes or len(set(modes)) != len(modes):
            raise ValueError(
                f"expected one or more different modes; got {list(modes)}. Name each once, or leave it out"
            )
        return modes

    @model_validator(mode="after")
    def _modes_agree(self) -> ProbeOptions:
        if not self.modes:
            return self
        if "mode" in self.model_fields_set and self.mode != self.modes[0]:
            raise ValueError(
                f'expected mode to be the first of modes; got mode = "{self.mode}" and modes = {list(self.modes)}. '
                "Leave mode out"
            )
        if len(self.modes) > 1 and self.reference_mode is not None:
            raise ValueError(
                f"reference_mode, a defect of measuring, goes with one mode alone; got modes = {list(self.modes)}. "
                "Leave one of the two out"
            )
        # It stays unset, so that a design may list other modes.
        object.__setattr__(self, "mode", self.modes[0])
        return self

    @property
    def every_mode(self) -> tuple[ProbeMode, ...]:
        """The modes that are measured, the first of which is the study's own."""
        return self.modes or (self.mode,)

    def modes_of(self, *, at_the_end: bool) -> tuple[ProbeMode, ...]:
        """The modes that are measured at a checkpoint."""
        return self.every_mode if at_the_end or self.modes_at == "all" else self.every_mode[:1]

    @property
    def groups(self) -> frozenset[str]:
        if self.measures == "all":
            return frozenset(MEASURES)
        return frozenset(ANGLES if self.measures == "angles" else self.measures)

    @property
    def own_measures(self) -> tuple[str, ...]:
        """The measures of the user's own, in the order in which the study names them."""
        return tuple(name for name in self.measures if is_own(name)) if isinstance(self.measures, tuple) else ()
