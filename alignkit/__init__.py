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
    "Study": "alignkit.study.study",
    "Claim": "alignkit.study.claim",
    "Design": "alignkit.study.study",
    "Records": "alignkit.records.store",
    "Verdict": "alignkit.claims.verdict",
    "AlignkitError": "alignkit.errors",
    "run_study": "alignkit.execution.run_study",
    "open_study": "alignkit.execution.run_study",
    "shipped_studies": "alignkit.execution.run_study",
    "study_plan": "alignkit.execution.run_study",
    "load": "alignkit.records.store",
    "run_summaries": "alignkit.records.summaries",
    "compare": "alignkit.claims.compare",
    "fit": "alignkit.claims.fit",
    "contrast": "alignkit.stats.contrasts.contrasts",
    "contrasts": "alignkit.stats.contrasts.contrasts",
    "marginal_means": "alignkit.stats.models.margins",
    "marginal_contrasts": "alignkit.stats.models.margins",
    "evaluate": "alignkit.claims.verdicts",
    "recommendations": "alignkit.claims.recommendations",
    "configurations": "alignkit.claims.configurations",
    "claim_cells": "alignkit.claims.cells",
    "stake": "alignkit.claims.stakes",
    "write_report": "alignkit.report",
    "audit": "alignkit.auditing.audit",
    "published_summary": "alignkit.papers.published_summary",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alignkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
