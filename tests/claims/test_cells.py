"""The spread of a claim's effect over cells, in records whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic import grid, half_fraction, synthetic_records, unfinished_records

from alignkit.claims.cells import cells_entry, claim_cells
from alignkit.claims.recommendations import recommendations
from alignkit.claims.verdicts import evaluate
from alignkit.claims.wording import to_markdown
from alignkit.errors import AnalysisError
from alignkit.records.store import Records

FACTORS: dict[str, list[Any]] = {
    "network.activation": ["relu", "tanh"], "network.norm": ["none", "batch"], "network.depth": [2, 3],
    "network.initialisation": ["pytorch", "orthogonal"],
}  # fmt: skip
CLAIM: dict[str, Any] = {
    "name": "norm", "statement": "Batch norm aligns", "practice": "Use batch norm", "factor": "norm",
    "levels": ["none", "batch"], "direction": "decrease", "smallest_effect": 1.0,
}  # fmt: skip


def known(cells: list[dict[str, Any]], seeds: int = 8) -> Records:
    return synthetic_records(
        designs={"practices": cells}, study={"claims": [CLAIM]}, angle_effects={"network.norm": -4.0}, seeds=seeds,
        residual_sd=0.3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def records() -> Records:
    """Batch norm improves the angle by 4° on average: by 10° with ReLU, not at all but for -2° with tanh."""
    plain = known(grid(FACTORS))
    runs = plain.runs.set_index("run_id")
    side = np.where(runs["activation"] == "relu", -6.0, 6.0) * (runs["norm"] == "batch") * (runs["rule"] == "dfa")
    plain.layers["signal_angle_deg"] += plain.layers["run_id"].map(side)
    return plain


def test_a_moderated_effect_has_the_spread_of_its_two_sides(records: Records) -> None:
    claim = records.study.claims[0]
    found = claim_cells(records, claim)
    assert found.spread.n_cells == 8
    assert found.spread.sd == pytest.approx(6 * (8 / 7) ** 0.5, abs=0.4)
    assert found.spread.opposite == 4
    relu = found.cells[found.cells["activation"] == "relu"]
    np.testing.assert_allclose(relu["pooled"], -10, atol=1)
    assert found.spread.prediction[0] < -10 and found.spread.prediction[1] > 2


def test_its_mean_is_the_verdicts_estimate(records: Records) -> None:
    (verdict,) = evaluate(records)
    found = claim_cells(records, verdict.claim).spread
    assert (found.estimate, *found.interval) == pytest.approx((verdict.estimate, *verdict.interval))


def test_recommendations_say_it(records: Records) -> None:
    (entry,) = recommendations(records)
    assert entry["cells"]["n_cells"] == 8
    assert entry["cells"]["cells_of_the_other_sign"] == 4
    assert "Over 8 cells the effect has an sd of 6." in to_markdown([entry])


def test_a_fraction_has_no_cells_to_compare() -> None:
    records = known(half_fraction(FACTORS))
    claim = records.study.claims[0]
    with pytest.raises(AnalysisError, match="no cell was tried at both levels"):
        claim_cells(records, claim)
    assert cells_entry(records, claim) is None


def test_two_cells_are_too_few() -> None:
    records = known(grid({path: FACTORS[path] for path in ("network.activation", "network.norm")}))
    with pytest.raises(AnalysisError, match="≥ 3 cells"):
        claim_cells(records, records.study.claims[0])


def test_cells_that_lack_a_run_are_left_out_and_counted() -> None:
    records = known(grid(FACTORS))
    gone = (records.runs["cell"] == records.runs["cell"].iloc[0]) & (records.runs["seed"] == 1)
    found = claim_cells(unfinished_records(records, gone), records.study.claims[0])
    assert found.spread.n_cells == 7
    assert found.warnings == ("1 cell without an effect under some seed left out",)


def test_a_line_and_a_block(records: Records) -> None:
    found = claim_cells(records, records.study.claims[0])
    assert "in 4 of them it has the other sign" in repr(found)
    assert "\n" not in repr(found)
    assert found._repr_html_().count("<tr>") == 9
