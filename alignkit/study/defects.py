"""Known defects of published measurements that a study can ask for, each by its name."""

from __future__ import annotations

from alignkit.settings.study_options import Settings
from alignkit.study.designs import flat
from alignkit.study.plan import every_settings
from alignkit.study.study import Study

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


def defects(study: Study, *, source: str = "study") -> dict[str, str]:
    """What a reader must know of a study that measures as published work did, by the defect's name."""
    cells = list(every_settings(study, source=source, own_modules=False))
    found = []
    if any(settings.probe.reference_mode not in (None, settings.probe.mode) for settings in cells):
        found.append("two modes")
    if any(settings.probe.reference_masks != "shared" and _masks_signals(settings) for settings in cells):
        found.append("other masks")
    if len(study.seed_list) == 1 and not _varies_streams(study):
        found.append(ONE_SEED)
    return {name: f"Measured with a known defect: {DEFECTS[name]}" for name in found}


def _masks_signals(settings: Settings) -> bool:
    network = settings.network
    return bool(network.signal_masked) or any(layer.signal_masked for layer in network.layers)


def _varies_streams(study: Study) -> bool:
    """Whether draws replicate within a seed."""
    return any(name.startswith("streams.") for design in study.designs.values() for name in flat(design.factors))
