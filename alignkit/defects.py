"""Known defects of published measurements that a study can ask for, each by its name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alignkit.designs import flat
from alignkit.study import Study

DEFECTS = {
    "two modes": (
        "the two signals come from passes in different modes (probe.reference_mode): with batch norm or dropout their "
        "angle also holds the difference of two networks"
    ),
    "other masks": (
        "the reference is under other masks than the signal (probe.reference_masks): angles of layers with masked "
        "signals hold the difference of the masks"
    ),
    "one seed": ("one seed: the spread over samples says nothing of other networks, there is no interval and no test"),
}


ONE_SEED = "one seed"


def defects(study: Study) -> dict[str, str]:
    """What a reader must know of a study that measures as published work did, by the defect's name."""
    found = []
    if any(mode not in (None, study.probe.mode) for mode in _values(study, "reference_mode")):
        found.append("two modes")
    if any(masks != "shared" for masks in _values(study, "reference_masks")):
        found.append("other masks")
    if len(study.seed_list) == 1 and not _varies_streams(study):
        found.append(ONE_SEED)
    return {name: f"Measured with a known defect: {DEFECTS[name]}" for name in found}


def _varies_streams(study: Study) -> bool:
    """Whether draws replicate within a seed."""
    return any(name.startswith("streams.") for design in study.designs.values() for name in flat(design.factors))


def _values(study: Study, option: str) -> Iterator[Any]:
    """What a probe option is anywhere in the study."""
    path = f"probe.{option}"
    yield getattr(study.probe, option)
    for design in study.designs.values():
        for overrides in (design.base, *design.cells):
            yield from [flat(overrides)[path]] if path in flat(overrides) else []
        for name, levels in flat(design.factors).items():
            if name == path:
                yield from levels
            elif isinstance(levels, dict):
                yield from [flat(level)[path] for level in levels.values() if path in flat(level)]
