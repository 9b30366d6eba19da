"""What identifies a run and an arm: hashes of everything that determines them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from alignkit.settings.modules import code_identity, is_own
from alignkit.settings.rules import identifying_options, rule_identity
from alignkit.settings.study_options import SECTIONS, Settings
from alignkit.study.designs import reads_feedback

ENGINE_VERSION = 2
"""Raised when the same settings and seed would train or measure differently, rounding apart."""
Fingerprint = Callable[[Any], str]


def run_id(rule: str, settings: Settings, seed: int, fingerprint: Fingerprint) -> str:
    """A hash of everything that determines a run: defaults left out, so that a later option voids nothing."""
    return run_ids(rule, settings, fingerprint)(seed)


def run_ids(rule: str, settings: Settings, fingerprint: Fingerprint) -> Callable[[int], str]:
    """The `run_id` of an arm by its seed; what its seeds share is worked out once."""
    shared = {"engine": ENGINE_VERSION, "rule": rule_identity(rule), **_determinants(rule, settings, fingerprint)}
    return lambda seed: _hash({**shared, "seed": seed})


def replicate_ids(rule: str, settings: Settings, fingerprint: Fingerprint) -> Callable[[int], str]:
    """What the runs of an arm have in common at whatever learning rate, by seed."""
    determined = _determinants(rule, settings, fingerprint)
    for key in ("lr", "output_lr"):
        determined["training"].pop(key, None)
    shared = {"replicate": ENGINE_VERSION, "rule": rule_identity(rule), **determined}
    return lambda seed: _hash({**shared, "seed": seed})


def arm_id(rule: str, settings: Settings, fingerprint: Fingerprint) -> str:
    """Identifies an arm apart from its learning rates, its probe and its streams: what a pilot tunes."""
    determined = _determinants(rule, settings, fingerprint)
    for key in ("lr", "output_lr"):
        determined["training"].pop(key, None)
    for section in ("probe", "measures", "streams", *([] if reads_feedback(rule, settings) else ["feedback"])):
        determined.pop(section, None)
    return _hash({"rule": rule_identity(rule), **determined})


def _determinants(rule: str, settings: Settings, fingerprint: Fingerprint) -> dict[str, Any]:
    dumped = settings.model_dump(mode="json", exclude_defaults=True)
    sections = {section: dict(dumped.get(section, {})) for section in SECTIONS if section not in ("data", "rule")}
    if len(settings.probe.every_mode) == 1:  # said in another way, it is the same run
        for key in ("modes", "modes_at"):
            sections["probe"].pop(key, None)
    options = identifying_options(rule, settings.rule)
    own: dict[str, Any] = {"op": code_identity(settings.network.op)} if is_own(settings.network.op) else {}
    if settings.probe.own_measures:
        own["measures"] = [code_identity(name) for name in settings.probe.own_measures]
    return {"data": fingerprint(settings.data), **sections, **({"options": options} if options else {}), **own}


def _hash(determined: Any) -> str:
    text = json.dumps(determined, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
