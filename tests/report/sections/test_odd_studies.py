"""Questions about training and claims, put to studies that cannot answer them: a line each, never a crash."""

from __future__ import annotations

import re
from typing import Any

import pytest
from synthetic import grid, synthetic_records

from alignkit.claims.analysis import analyse
from alignkit.errors import AnalysisError
from alignkit.report.sections.equal_loss import equal_loss
from alignkit.report.sections.mediation import mediation
from alignkit.report.sections.phases import phases
from alignkit.report.sections.thresholds import thresholds

FOUR = {"widths": grid({"network.width": [8, 16, 32, 64]})}
CLAIM: dict[str, Any] = {
    "name": "width", "statement": "s", "factor": "width", "levels": [8, 32], "direction": "decrease",
    "smallest_effect": 1.0,
}  # fmt: skip
ODD: dict[str, dict[str, Any]] = {
    "no factors": {"designs": {"study": [{}]}},
    "bp alone": {"rules": ("bp",)},
    "no bp": {"rules": ("dfa",)},
    "shallow alone": {"rules": ("shallow",)},
    "one seed": {"seeds": 1},
    "all diverged": {"diverge": (("network.width", 8), ("network.width", 32))},
    "no measures": {"measures": ()},
    "gradient only": {"measures": ("gradient_cosine",)},
    "regression": {"regression": True},
    "one checkpoint": {"steps": (360,)},
    "one layer": {"designs": {"widths": grid({"network.width": [8, 16, 32, 64], "network.depth": [1]})}},
}


@pytest.mark.parametrize("name", ODD)
def test_odd_studies_give_a_section_none_or_a_reason(name: str) -> None:
    options = {"designs": FOUR, "seeds": 2, "steps": (0, 4, 45, 90, 360), "study": {"claims": [CLAIM]}, **ODD[name]}
    analysis = analyse(synthetic_records(**options))
    named = {"phases": phases, "thresholds": thresholds, "matched": equal_loss, "mediation": mediation}
    for own, question in named.items():
        try:
            section = question(analysis)
        except AnalysisError as error:
            said = [str(error)]
        else:
            if section is None:
                continue
            assert section.sentences and len({table.name for table in section.tables}) == len(section.tables)
            assert all(table.name.startswith(own) for table in section.tables)
            said = [*section.sentences, *section.notes, *(chart.see + chart.how for chart in section.charts)]
            for table in section.tables:
                said.append(table.caption)
                assert all(len(row) == len(table.columns) for row in table.rows)
                said += [cell for row in table.rows for cell in row]
        assert not re.search(r"\b(nan|NaN|None|inf|NaT)\b", " ".join(said)), said
