"""Plans of one design, for tests."""

from __future__ import annotations

from alignkit.study.plan import expand
from alignkit.study.study import Study


def plan(designs, **study):
    raw = {"name": "t", "seeds": 1, "rules": ["dfa"], "designs": {"d": designs}, **study}
    return expand(Study.parse(raw), fingerprint=lambda section: section.model_dump_json())
