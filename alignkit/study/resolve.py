"""The settings of a cell: those of the study, with what the cell sets in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignkit.errors import StudyError
from alignkit.settings.study_options import SECTIONS, Settings
from alignkit.settings.validation import validated
from alignkit.study.study import Study


def resolve(study: Study, overrides: Mapping[str, Any], place: str, *, own_modules: bool = True) -> Settings:
    """The study's settings with dotted `overrides`, validated."""
    raw = study.model_dump(include=set(SECTIONS), exclude_unset=True)
    if any(path.startswith("network.") for path in overrides):
        network = {path.split(".", 1)[1] for path in overrides if path.startswith("network.")}
        if "widths" in network:
            raw["network"] = {k: v for k, v in raw.get("network", {}).items() if k not in ("width", "depth")}
        elif network & {"width", "depth"}:
            raw["network"] = {k: v for k, v in raw.get("network", {}).items() if k != "widths"}
    for path, value in overrides.items():
        section, _, key = path.partition(".")
        if section not in SECTIONS or not key:
            raise StudyError(
                f'{place}: "{path}" is no option; expected section.key with a section of {", ".join(SECTIONS)}'
            )
        raw.setdefault(section, {})
        raw[section] = {**raw[section], key: value}
    return validated(Settings, raw, source=place, own_modules=own_modules)
