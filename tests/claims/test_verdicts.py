"""Verdicts on records whose truth is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import (
    PRACTICES,
    full_study,
    grid,
    half_fraction,
    synthetic_records,
    synthetic_study,
    unfinished_records,
)

from alignkit.claims.tables import claim_table
from alignkit.claims.verdict import Verdict, verdict_frame
from alignkit.claims.verdicts import _judge, evaluate, without_seed
from alignkit.records.registration import Entry, Registration, analysis_plan
from alignkit.records.store import Records
from alignkit.stats.contrasts.contrasts import contrast
from alignkit.stats.contrasts.equivalence import equivalence_test

CLAIM: dict[str, Any] = {
    "name": "c", "statement": "Normalisation aligns", "practice": "Normalise", "factor": "norm",
    "levels": ["none", "batch"], "direction": "decrease", "smallest_effect": 1.0, "failed": "worst_case",
}  # fmt: skip
SMALL_FACTORS = {"network.norm": ["none", "batch"], "network.width": [16, 32]}
SMALL = {"cells": grid(SMALL_FACTORS)}


def judged(*changes: dict[str, Any], **options: Any) -> list[Verdict]:
    claims = [{**CLAIM, **change} for change in changes] or [CLAIM]
    options.setdefault("designs", SMALL)
    return evaluate(synthetic_records(study={"claims": claims}, steps=(0, 360), **options))


@pytest.mark.parametrize(
    ("effect", "direction", "expected"),
    [
        (-6.0, "decrease", "supported"),
        (-6.0, "increase", "refuted"),
        (6.0, "decrease", "refuted"),
        (0.0, "decrease", "equivalent"),
    ],
)
def test_verdicts(effect: float, direction: str, expected: str) -> None:
    (verdict,) = judged(
        {"direction": direction}, angle_effects={"network.norm": effect}, seed_by_factor_sd=0.3, residual_sd=0.3
    )
    assert verdict.verdict == expected
    assert verdict.interval[0] < effect < verdict.interval[1] and verdict.n_seeds == 10 and verdict.df == 9


def test_a_noisy_study_is_undecided() -> None:
    (verdict,) = judged(angle_effects={"network.norm": -1.0}, seed_by_factor_sd=6.0)
    assert verdict.verdict == "undecided" and "neither" in verdict.reason


def test_a_certain_effect_that_is_too_small_is_equivalent() -> None:
    (verdict,) = judged(
        {"smallest_effect": 3.0}, angle_effects={"network.norm": -1.0}, seed_by_factor_sd=0.1, residual_sd=0.1
    )
    assert verdict.p_adjusted < 0.05 and verdict.verdict == "equivalent"


def test_the_recovered_effect_is_the_true_one_in_a_fraction() -> None:
    verdicts = {verdict.claim.name: verdict for verdict in evaluate(full_study())}
    assert verdicts["norm"].verdict == "supported" and verdicts["norm"].estimate == pytest.approx(-6.0, abs=0.6)
    assert verdicts["activation"].verdict == "refuted" and verdicts["activation"].estimate == pytest.approx(
        4.0, abs=0.6
    )
    assert verdicts["dropout"].verdict == "equivalent" and verdicts["width"].unit == "points"
    assert "lr 0.1 vs 0.03, each arm's own tuned rate" in verdicts["norm"].learning_rates
    assert verdicts["activation"].learning_rates == ""


def test_too_few_seeds_leave_the_estimate_and_say_what_would_do() -> None:
    (verdict,) = judged(seeds=5, angle_effects={"network.norm": -6.0})
    assert verdict.verdict == "undecided" and "needs ≥ 6 seeds" in verdict.reason and "got 5" in verdict.reason
    assert np.isfinite(verdict.estimate) and np.isnan(verdict.p)


def test_the_family_decides_how_many_seeds_are_needed() -> None:
    names = [{"name": f"c{index}"} for index in range(10)]
    verdicts = judged(*names, seeds=8, angle_effects={"network.norm": -6.0})
    assert {verdict.verdict for verdict in verdicts} == {"undecided"} and "needs ≥ 9 seeds" in verdicts[0].reason
    exploratory = judged(
        *({**name, "family": "exploratory"} for name in names), seeds=8, angle_effects={"network.norm": -6.0}
    )
    assert {verdict.verdict for verdict in exploratory} == {"supported"}


def test_untestable_claims_still_count_in_their_family() -> None:
    alone = judged(angle_effects={"network.norm": -6.0})
    beside = judged(
        {},
        {"name": "c2", "factor": "nrm"},
        {"name": "c3", "levels": ["none", "layer"]},
        angle_effects={"network.norm": -6.0},
    )
    assert beside[0].p_adjusted == pytest.approx(3 * alone[0].p_adjusted)
    assert 'did you mean "norm"' in beside[1].reason and "no run has" in beside[2].reason
    assert {verdict.verdict for verdict in beside[1:]} == {"undecided"}


def test_levels_may_be_written_in_any_type() -> None:
    for levels in ([16, 32], ["16", "32"], [16.0, 32.0]):
        (verdict,) = judged({"factor": "width", "levels": levels}, angle_effects={"network.width": -6.0})
        assert verdict.verdict == "supported", verdict.reason
    cells = {"cells": grid({"feedback.normalised": [False, True], "network.width": [16, 32]})}
    (verdict,) = judged(
        {"factor": "feedback_normalised", "levels": [False, True]},
        designs=cells,
        angle_effects={"feedback.normalised": -6.0},
    )
    assert verdict.verdict == "supported"


def test_bp_has_no_feedback_factor() -> None:
    cells = {"cells": grid({"feedback.normalised": [False, True], "network.width": [16, 32]})}
    claim = {"factor": "feedback_normalised", "levels": [False, True], "rule": "bp", "response": "test_accuracy"}
    (verdict,) = judged(claim, designs=cells)
    assert verdict.verdict == "undecided" and "do not have the factor" in verdict.reason
    (verdict,) = judged({**claim, "factor": "width", "levels": [16, 32]}, designs=cells)
    assert verdict.n_cells == 1  # a BP run that two cells share counts once


def test_a_claim_keeps_to_its_design() -> None:
    designs = {"wide": grid({"network.norm": ["none"], "network.width": [16, 32]}), **SMALL}
    (verdict,) = judged(designs=designs | {"x": []}, angle_effects={"network.norm": -6.0})
    assert verdict.verdict == "supported"
    for change, message in (
        ({"rule": "fa"}, 'no run has the rule "fa"'),
        ({"design": "wid"}, "no run is of the design"),
    ):
        (verdict,) = judged(change, designs=designs)
        assert verdict.verdict == "undecided" and message in verdict.reason
    (verdict,) = judged({"design": "wide"}, designs=designs)
    assert verdict.verdict == "undecided" and "the level batch" in verdict.reason


def test_diverged_runs_are_counted_by_level() -> None:
    (verdict,) = judged(diverge=(("network.norm", "batch"),), angle_effects={"network.norm": -6.0})
    assert verdict.n_seeds == 8
    assert any("diverged: 0 runs at none, 4 at batch" in warning for warning in verdict.warnings)
    assert any("4 of 20 pairs" in warning for warning in verdict.warnings)


def test_a_verdict_does_not_rest_on_why_runs_failed() -> None:
    """4 of 20 runs at one level have no angle: it might have been anything from 0 to 180 degrees."""
    failing = {"diverge": (("network.norm", "batch"),), "seed_by_factor_sd": 0.3, "residual_sd": 0.3}
    (verdict,) = judged(angle_effects={"network.norm": -6.0}, **failing)
    assert verdict.interval[1] < 0 and verdict.worst_case[0] < -6.0 < 0 < verdict.worst_case[1]
    assert verdict.verdict == "undecided" and verdict.p > 0.05
    assert any("the effect lies between" in warning for warning in verdict.warnings)
    (equal,) = judged({"smallest_effect": 2.0}, **failing)
    assert equal.verdict == "undecided"
    # Where all runs are there, nothing changes.
    (whole,) = judged(angle_effects={"network.norm": -6.0}, seed_by_factor_sd=0.3, residual_sd=0.3)
    assert whole.verdict == "supported" and np.isnan(whole.worst_case).all()


@pytest.mark.parametrize("seeds", [10, 20])
def test_a_failed_run_counts_as_one_that_did_not_align(seeds: int) -> None:
    """Two of the runs at one level diverged: by default they stand at 90 degrees, and nothing is left out."""
    options: dict[str, Any] = {"diverge": (("network.norm", "batch"),), "seeds": seeds, "residual_sd": 0.3}
    (verdict,) = judged({"failed": "not_aligned"}, angle_effects={"network.norm": -16.0}, **options)
    (without,) = judged({"failed": "not_aligned"}, angle_effects={"network.norm": -16.0}, **{**options, "diverge": ()})
    assert verdict.n_seeds == seeds and np.isnan(verdict.worst_case).all()
    assert any("failed" in note and "0 runs at none, 4 at batch" in note and "90°" in note for note in verdict.warnings)
    assert verdict.differences[2:] == pytest.approx(without.differences[2:])
    assert np.mean(verdict.differences[:2]) > 15.0  # 90 degrees, from about 66


def test_a_response_that_no_run_has_is_no_failure() -> None:
    records = synthetic_records(designs=SMALL, study={"claims": [{**CLAIM, "failed": "not_aligned"}]}, steps=(0, 360))
    blank = dataclasses.replace(records, layers=records.layers.assign(signal_angle_deg=float("nan")))
    (verdict,) = evaluate(blank)
    assert verdict.verdict == "undecided" and verdict.n_seeds == 0


def test_incomplete_records_are_preliminary() -> None:
    records = synthetic_records(designs=SMALL, study={"claims": [CLAIM]}, steps=(0, 360))
    (verdict,) = evaluate(dataclasses.replace(records, missing=3))
    assert any("preliminary: 3 planned runs" in warning and "worst case" in warning for warning in verdict.warnings)


def at_batch(records: Records, seeds: set[int]) -> pd.Series:
    """The DFA runs with batch norm of some seeds, at the smaller width."""
    runs = records.runs
    return (runs["rule"] == "dfa") & (runs["norm"] == "batch") & (runs["width"] == 16) & runs["seed"].isin(seeds)


@pytest.mark.parametrize("response", ["signal_angle_deg", "accuracy_gap", "delta_cosine"])
def test_a_run_that_has_not_finished_is_a_run_without_a_value(response: str) -> None:
    """Verdict and bounds are those of runs that finished and diverged."""
    claim = {**CLAIM, "response": response, "smallest_effect": 0.1}
    records = synthetic_records(
        designs=SMALL, study={"claims": [claim]}, steps=(0, 360), angle_effects={"network.norm": -6.0}
    )
    gone = at_batch(records, {1, 4})
    ids = set(records.runs.loc[gone, "run_id"])
    diverged = dataclasses.replace(
        records,
        runs=records.runs.assign(diverged=gone, test_accuracy=records.runs["test_accuracy"].mask(gone)),
        layers=records.layers.assign(
            **{name: records.layers[name].mask(records.layers["run_id"].isin(ids)) for name in ("signal_angle_deg", "delta_cosine")}
        ),
    )  # fmt: skip
    (expected,) = evaluate(diverged)
    (verdict,) = evaluate(unfinished_records(records, gone))
    assert verdict.worst_case == expected.worst_case and np.isfinite(verdict.worst_case).all()
    assert (verdict.p, verdict.p_equivalence, verdict.estimate) == (
        expected.p,
        expected.p_equivalence,
        expected.estimate,
    )
    assert "not finished yet: 0 runs at none, 2 at batch" in verdict.warnings
    assert any(warning.startswith("preliminary: 2 planned runs") for warning in verdict.warnings)
    # One more run to come, elsewhere in the study, does not switch the worst case off.
    (waiting,) = evaluate(dataclasses.replace(diverged, missing=1))
    assert (waiting.worst_case, waiting.p) == (expected.worst_case, expected.p)


def test_a_half_finished_study_says_that_it_is_too_early() -> None:
    records = synthetic_records(
        designs=SMALL, study={"claims": [CLAIM]}, steps=(0, 360), angle_effects={"network.norm": -6.0}
    )
    runs = records.runs
    (verdict,) = evaluate(unfinished_records(records, runs["seed"] >= 3))
    assert verdict.verdict == "undecided" and verdict.estimate == pytest.approx(-6.0, abs=1.0)
    assert verdict.reason == (
        "too early to tell: 28 of its 40 runs have no records yet, and of the 6 seeds that the exact test needs, 3 can be "
        "compared"
    )
    for gone in (runs["norm"] == "batch", runs["rule"] == "dfa"):  # a level, or all that the claim is on
        (verdict,) = evaluate(unfinished_records(records, gone))
        assert verdict.design == "cells" or verdict.design is None
        assert verdict.verdict == "undecided" and "too early to tell" in verdict.reason and "0 can be" in verdict.reason
    # Seven seeds would decide, but the other three could undo it.
    (verdict,) = evaluate(unfinished_records(records, runs["seed"] >= 7))
    assert verdict.n_seeds == 7 and verdict.interval[1] < 0 and verdict.verdict == "undecided" and verdict.p == 1.0


def test_equivalence_holds_on_the_worst_case() -> None:
    """The p of equivalence is the largest of all fillings-in, and the family is adjusted with that one."""
    claims = [{**CLAIM, "name": f"c{index}", "smallest_effect": 9.5} for index in range(8)]
    records = synthetic_records(
        designs={"g": grid({**SMALL_FACTORS, "network.dropout": [0.0, 0.1]})}, study={"claims": claims}, rules=("dfa",),
        steps=(0, 360), seed_by_factor_sd=0.3, residual_sd=0.3, seeds=10,
    )  # fmt: skip
    gone = at_batch(records, {0}) & (records.runs["dropout"] == 0.0)
    verdict = evaluate(unfinished_records(records, gone))[0]
    table = claim_table(records, records.study.claims[0])
    lost = table["run_id"].isin(records.runs.loc[gone, "run_id"])
    filled = [
        contrast(
            table.assign(value=table["value"].mask(lost, value)), factor="norm", levels=("none", "batch"),
            within=list(records.factors),
        ).differences
        for value in (0.0, 45.0, 90.0, 180.0)
    ]  # fmt: skip
    worst = max(equivalence_test(differences, margin=9.5).p for differences in filled)
    assert verdict.p_equivalence == pytest.approx(worst)
    assert verdict.p_equivalence < 0.05 < verdict.p_equivalence_adjusted and verdict.verdict == "undecided"


@pytest.mark.parametrize("diverge", [(), (("network.norm", "batch"),)])
def test_verdicts_without_a_seed_are_those_of_records_without_it(diverge: tuple[tuple[str, Any], ...]) -> None:
    claims = [{**CLAIM, "smallest_effect": 60.0}, {**CLAIM, "name": "w", "factor": "width", "levels": [16, 32]}]
    records = synthetic_records(
        designs=SMALL, study={"claims": claims}, steps=(0, 360), angle_effects={"network.width": -8.0}, diverge=diverge
    )
    verdicts = evaluate(records)
    for seed in (0, 5):
        runs = records.runs[records.runs["seed"] != seed].reset_index(drop=True)
        layers = records.layers[records.layers["run_id"].isin(runs["run_id"])]
        expected = evaluate(dataclasses.replace(records, runs=runs, layers=layers))
        for found, verdict in zip(without_seed(records, verdicts, seed), expected, strict=True):
            assert found is not None
            assert (found.verdict, found.reason, found.worst_case) == (
                verdict.verdict, verdict.reason, pytest.approx(verdict.worst_case, nan_ok=True)
            )  # fmt: skip
            assert (found.p, found.p_adjusted, found.p_equivalence) == pytest.approx(
                (verdict.p, verdict.p_adjusted, verdict.p_equivalence)
            )
    if diverge:
        assert np.isfinite(verdicts[0].worst_case).all() and verdicts[0].p_equivalence > 0.0


def test_what_cannot_be_tested_cannot_be_examined_without_a_seed() -> None:
    records = synthetic_records(designs=SMALL, study={"claims": [CLAIM]}, steps=(0, 360), seeds=5)
    assert without_seed(records, evaluate(records), 0) == [None]


def test_a_refuted_claim_has_a_size_as_a_supported_one() -> None:
    truth = {"angle_effects": {"network.norm": 6.0}, "seed_by_factor_sd": 0.3, "residual_sd": 0.3}
    (clear,) = judged(**truth)
    assert clear.reason == "increases, where the claim says decreases, at least 1°"
    (small,) = judged({"smallest_effect": 6.0}, **truth)
    assert small.interval[0] < 6.0
    assert small.reason == (
        "increases, where the claim says decreases, perhaps less than 6°, the smallest effect that matters"
    )
    # An interval across 0 is "at least" nothing, however far its ends are from 0.
    wide = dataclasses.replace(clear, interval=(-2.0, 9.0), reason="")
    assert "perhaps less than 1°" in _judge(wide, 0.01, 1.0, 0.05).reason


def test_no_claims_no_verdicts_and_a_frame_with_columns() -> None:
    assert evaluate(synthetic_records(designs=SMALL, steps=(0, 360))) == []
    assert "verdict" in verdict_frame([]).columns
    assert len(judged()[0].to_frame()) == 1


def _null(noise: int, claims: int) -> Records:
    factors = {path: PRACTICES[path] for path in list(PRACTICES)[: max(claims, 3)]}
    names = [path.split(".")[1] for path in factors]
    declared = [
        {**CLAIM, "name": name, "factor": name, "levels": list(levels), "smallest_effect": 1e-6}
        for name, levels in list(zip(names, factors.values(), strict=True))[:claims]
    ]
    return synthetic_records(
        designs={"all": half_fraction(factors)},
        study={"claims": declared}, rules=("dfa",), steps=(360,), noise=noise + 1000 * claims, seed_by_factor_sd=1.0,
        measures=("signal_angle_deg",),
    )  # fmt: skip


@pytest.mark.parametrize(("claims", "studies"), [(1, 40), pytest.param(3, 60, marks=pytest.mark.slow)])
def test_false_verdicts_under_the_null(claims: int, studies: int) -> None:
    """Type I error of one claim and family-wise error of three, with seed x factor variance."""
    false = 0
    for noise in range(studies):
        verdicts = evaluate(_null(noise, claims))
        assert all(np.isfinite(verdict.p) for verdict in verdicts)
        false += any(verdict.verdict in ("supported", "refuted") for verdict in verdicts)
    bound = 2.576 * np.sqrt(0.05 * 0.95 / studies)
    assert abs(false / studies - 0.05) <= bound


def registered(*entries: tuple[int, list[dict[str, Any]]], **options: Any) -> list[Verdict]:
    """Verdicts on the last entry's claims, under a history of analysis plans (finished runs, claims)."""
    *_, (_, claims) = entries
    records = synthetic_records(designs=SMALL, study={"claims": claims}, steps=(0, 360), **options)
    history = tuple(
        Entry(analysis_plan(synthetic_study(claims=declared, seeds=records.study.seeds)), finished)
        for finished, declared in entries
    )
    return evaluate(dataclasses.replace(records, registration=Registration(history)))


def test_a_claim_that_came_after_the_records_is_exploration() -> None:
    other = {**CLAIM, "name": "late", "factor": "width", "levels": [16, 32]}
    changed = {**CLAIM, "smallest_effect": 0.1}
    truth = {"angle_effects": {"network.norm": -6.0, "network.width": -6.0}}
    before, late = registered((0, [CLAIM]), (40, [CLAIM, other]), **truth)
    assert before.declared and not late.declared
    assert (before.claim.family, late.claim.family) == ("confirmatory", "exploratory")
    (alone,) = registered((0, [CLAIM]), **truth)
    assert before.p_adjusted == alone.p_adjusted  # what came later does not change its family
    (verdict,) = registered((0, [CLAIM]), (40, [changed]), **truth)
    assert not verdict.declared and verdict.claim.family == "exploratory" and verdict.claim.smallest_effect == 0.1
    (verdict,) = registered((40, [CLAIM]), **truth)  # the plan's beginning is lost
    assert not verdict.declared


def test_a_removed_claim_still_counts_in_its_family() -> None:
    others = [{**CLAIM, "name": f"c{index}", "factor": "width", "levels": [16, 32]} for index in range(3)]
    truth = {"angle_effects": {"network.norm": -6.0}}
    (alone,) = registered((0, [CLAIM]), **truth)
    later = {
        "removed": [],
        "renamed": [{**claim, "name": f"{claim['name']}_too"} for claim in others],
        "edited": [{**claim, "smallest_effect": 1.01} for claim in others],
        "moved to exploration": [{**claim, "family": "exploratory"} for claim in others],
    }
    for how, claims in later.items():
        verdict, *rest = registered((0, [CLAIM, *others]), (40, [CLAIM, *claims]), **truth)
        assert verdict.p_adjusted == pytest.approx(4 * alone.p_adjusted), how
        assert verdict.declared and not any(other.declared for other in rest)
        few = registered((0, [CLAIM, *others]), (40, [CLAIM, *claims]), seeds=7, **truth)
        assert "needs ≥ 8 seeds" in few[0].reason, how
    # One that was exploratory never counted.
    verdict, *_ = registered((0, [CLAIM, *later["moved to exploration"]]), (40, [CLAIM]), **truth)
    assert verdict.p_adjusted == alone.p_adjusted


def test_a_study_that_changed_after_the_runs_declares_nothing() -> None:
    records = synthetic_records(
        designs=SMALL, study={"claims": [CLAIM]}, steps=(0, 360), angle_effects={"network.norm": -6.0}
    )
    before = synthetic_study(claims=[CLAIM], seeds=6, training={"epochs": 3})
    history = (Entry(analysis_plan(before), 0), Entry(analysis_plan(records.study), 40))
    (verdict,) = evaluate(dataclasses.replace(records, registration=Registration(history)))
    assert verdict.verdict == "supported" and not verdict.declared and verdict.claim.family == "exploratory"
    assert verdict.warnings[0] == (
        "the seeds (from 6 to 10) and the settings of training changed after runs had finished: judged as exploration"
    )


def test_a_claim_may_be_about_one_layer_or_a_whole_training() -> None:
    truth = {"angle_effects": {"network.norm": -6.0}}
    (mean,) = judged(**truth)
    (first,) = judged({"layer": 1}, **truth)
    (area,) = judged({"summary": "auc"}, **truth)
    assert first.estimate == pytest.approx(mean.estimate, abs=0.5) and first.estimate != mean.estimate
    assert area.estimate == pytest.approx(mean.estimate / 2, abs=0.5)  # a straight line from 90° to the end
    (none,) = judged({"layer": 9}, **truth)
    assert none.verdict == "undecided" and "layer 9: no run has it" in none.reason
