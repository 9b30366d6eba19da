"""How many seeds the claims of a study need, by the variances of a pilot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic import grid, synthetic_records

from alignkit.claims.power import claim_power, power_frame
from alignkit.claims.verdicts import evaluate
from alignkit.errors import AnalysisError
from alignkit.records.store import Records
from alignkit.stats.contrasts.power import difference_power, seeds_needed
from alignkit.study.plan import expand
from alignkit.study.runs import Plan
from alignkit.study.study import Study

FACTORS: dict[str, list[Any]] = {"network.norm": ["none", "batch"], "network.width": [16, 32, 64, 128]}
CLAIM: dict[str, Any] = {
    "name": "norm", "statement": "Normalisation aligns", "factor": "norm", "levels": ["none", "batch"],
    "direction": "decrease", "smallest_effect": 1.0, "response": "signal_angle_deg",
}  # fmt: skip


def planned(*claims: dict[str, Any], factors: dict[str, list[Any]] = FACTORS, seeds: int = 10) -> Plan:
    study = {"name": "s", "seeds": seeds, "designs": {"d": {"factors": factors}}, "claims": claims or [CLAIM]}
    return expand(Study.parse(study), fingerprint=lambda data: "digits")


def pilot(*, factors: dict[str, list[Any]] = FACTORS, seeds: int = 40, **options: Any) -> Records:
    study = {"designs": {"d": {"factors": factors}}}
    return synthetic_records(designs={"d": grid(factors)}, study=study, seeds=seeds, steps=(0, 360), **options)


def test_the_sd_is_made_of_seeds_and_of_runs() -> None:
    (found,) = claim_power(planned(), pilot(seed_by_factor_sd=1.0, residual_sd=2.0))
    # One effect a seed, and the mean of four differences of two runs each.
    assert found.sd == pytest.approx(np.sqrt(1.0 + 2 * 4.0 / 4), rel=0.25) and found.sd < found.sd_upper
    assert (found.cells, found.n_seeds, found.pilot_seeds, found.unit) == (4, 10, 40, "°")
    assert found.power == difference_power(10, effect=1.0, sd=found.sd).power
    assert found.seeds == seeds_needed(effect=1.0, sd=found.sd).n_seeds
    assert found.seeds_upper is not None and found.seeds is not None and found.seeds_upper >= found.seeds


def test_more_cells_need_fewer_seeds() -> None:
    records = pilot(seed_by_factor_sd=0.3, residual_sd=3.0)
    many = {**FACTORS, "network.depth": [1, 2, 3, 4]}
    (few,), (more,) = claim_power(planned(), records), claim_power(planned(factors=many), records)
    assert more.seeds is not None and few.seeds is not None
    assert more.cells == 16 and more.sd < few.sd and more.seeds < few.seeds


def test_the_power_advised_is_that_of_the_design_that_the_verdict_is_taken_on() -> None:
    """Of two designs with both levels the first; its cells without a counterpart do not count."""
    alone = {"network.norm": ["none"], "network.width": [256]}
    grids = {
        "wide": {"network.norm": ["none", "batch"], "network.width": [16, 32]},
        "deep": {"network.norm": ["none", "batch"], "network.depth": [1, 2, 3, 4, 5, 6]},
    }
    cells = [*grid(grids["wide"]), *grid(alone)]
    listed = {"kind": "cells", "cells": cells}
    study: dict[str, Any] = {
        "name": "s", "seeds": 12, "claims": [CLAIM], "rules": ["dfa"],
        "designs": {"wide": listed, "deep": {"factors": grids["deep"]}},
    }  # fmt: skip
    plan = expand(Study.parse(study), fingerprint=lambda data: "digits")
    records = synthetic_records(
        designs={"wide": cells, "deep": grid(grids["deep"])}, rules=("dfa",), seeds=12, steps=(0, 360),
        seed_by_factor_sd=1.0, study={name: study[name] for name in ("claims", "designs")},
    )  # fmt: skip
    (verdict,), (found,) = evaluate(records), claim_power(plan, records)
    assert (verdict.design, verdict.n_cells, found.cells) == ("wide", 2, 2)
    assert found.sd == pytest.approx(np.std(verdict.differences, ddof=1))


@pytest.mark.slow
def test_the_family_and_the_effect_asked_for_count() -> None:
    claim = {**CLAIM, "smallest_effect": 3.0}
    others = [{**claim, "name": f"c{index}"} for index in range(9)]
    records = pilot()
    (alone,), (beside, *_) = claim_power(planned(claim), records), claim_power(planned(claim, *others), records)
    assert beside.seeds is not None and alone.seeds is not None and beside.seeds >= max(9, alone.seeds)
    (larger,) = claim_power(planned(claim), records, effect=5.0)
    assert larger.seeds is not None and larger.effect == 5.0 and larger.seeds <= alone.seeds
    (hopeless, *_) = claim_power(planned(claim, *others, seeds=8), records)
    assert hopeless.power == 0.0 and np.isnan(hopeless.detectable)  # eight seeds reject nothing in a family of ten


def test_one_cell_a_level_takes_the_sd_as_it_is() -> None:
    alone = {"network.norm": ["none", "batch"]}
    records = pilot(factors=alone, seed_by_factor_sd=1.0, residual_sd=1.0)
    (found,) = claim_power(planned(factors=alone), records)
    assert found.sd == pytest.approx(np.sqrt(1.0 + 2.0), rel=0.3)
    assert found.sd_upper > found.sd
    (other,) = claim_power(planned(), records)
    assert np.isnan(other.sd) and "several cells at each level, to say what 4 would give" in other.reason


def test_what_the_pilot_says_nothing_of_has_a_reason() -> None:
    claims = (
        CLAIM,
        {**CLAIM, "name": "wide", "factor": "width", "levels": [16, 128]},
        {**CLAIM, "name": "bp", "rule": "bp"},
    )
    norm_alone = pilot(factors={"network.norm": ["none", "batch"], "network.width": [16, 32]}, rules=("dfa",))
    known, wide, bp = claim_power(planned(*claims), norm_alone)
    assert not known.reason and "the level 128, which no run has" in wide.reason and bp.reason
    frame = power_frame([known, wide, bp])
    assert list(frame["claim"]) == ["norm", "wide", "bp"] and frame["sd"].isna().tolist() == [False, True, True]
    for effect in (0.0, -1.0, float("nan")):
        with pytest.raises(AnalysisError, match="--effect: expected a size above 0"):
            claim_power(planned(), norm_alone, effect=effect)
