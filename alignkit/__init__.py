"""alignkit: measure, test and explain alignment dynamics.

How far do the learning signals of direct feedback alignment and its kin point the way that
back-propagation would? The names below are what a notebook needs; each is loaded when it is used, so
that reading records and testing claims never imports torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Study": "alignkit.study",
    "Records": "alignkit.store",
    "Verdict": "alignkit.claims",
    "AlignkitError": "alignkit.errors",
    "run_study": "alignkit.run",
    "open_study": "alignkit.run",
    "shipped_studies": "alignkit.run",
    "load": "alignkit.store",
    "run_summaries": "alignkit.stats.summaries",
    "compare": "alignkit.inference",
    "fit": "alignkit.inference",
    "contrast": "alignkit.stats.contrasts",
    "contrasts": "alignkit.stats.contrasts",
    "marginal_means": "alignkit.stats.margins",
    "marginal_contrasts": "alignkit.stats.margins",
    "evaluate": "alignkit.claims",
    "recommendations": "alignkit.recommend",
    "write_report": "alignkit.report",
    "single_seed": "alignkit.single_seed",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alignkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
