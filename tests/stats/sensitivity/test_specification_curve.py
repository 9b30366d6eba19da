"""Specification curves: every point by hand, agreement and disagreement where they were built in."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from alignkit.claims.responses import alignment_scales
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.contrasts import contrast
from alignkit.stats.contrasts.location import SEED_MODELS
from alignkit.stats.contrasts.paired import paired_test
from alignkit.stats.models.beta import beta_contrast
from alignkit.stats.sensitivity.scales import fisher_z, identity, unit_share
from alignkit.stats.sensitivity.specification_curve import SpecificationCurve, _joint_p, specification_curve

EFFECTS = {"end": -5.0, "half-way": -4.0, "first epoch": -3.0}


def tables(*, effects: dict[str, float] = EFFECTS, seeds: int = 7, seed_by_factor_sd: float = 1.0) -> Any:
    """Angles of one study at three checkpoints, and their cosines; the seeds' own effects are shared."""

    def table_of(*, response: str, summary: str, checkpoint: str) -> pd.DataFrame:
        generator = np.random.default_rng(5)
        rows = []
        for seed in range(seeds):
            block, own = generator.normal(0, 3), generator.normal(0, seed_by_factor_sd)
            for width, norm in itertools.product((8, 64), ("none", "batch")):
                effect = (effects[checkpoint] + own) * (1.0 if summary == "final" else 0.5)
                angle = 65 + block + effect * (norm == "batch") + generator.normal(0, 0.5)
                value = angle if response == "signal_angle_deg" else np.cos(np.radians(angle))
                rows.append({"seed": seed, "width": width, "norm": norm, "value": value})
        return pd.DataFrame(rows)

    return table_of


def curve(table_of: Any, **options: Any) -> SpecificationCurve:
    options = {"scales": alignment_scales(), **options}
    return specification_curve(table_of, factor="norm", levels=("none", "batch"), within=["width"], **options)


def test_every_point_is_the_analysis_that_it_says() -> None:
    table_of = tables()
    frame = curve(table_of, checkpoints=["end", "first epoch"]).to_frame()
    assert len(frame) == 2 * 2 * (2 * 3 + 1) and not frame["reason"].any()
    first = frame.iloc[0]
    assert tuple(first[["scale", "summary", "checkpoint", "model"]]) == ("degrees", "final", "end", "mean")
    for row in frame.itertuples():
        response = "signal_angle_deg" if row.scale == "degrees" else "signal_cosine"
        table = table_of(response=response, summary=row.summary, checkpoint=row.checkpoint)
        transform = {"degrees": identity, "fisher z": fisher_z, "beta": unit_share}[row.scale]
        table["value"] = transform(table["value"])
        options = {"factor": "norm", "levels": ("none", "batch"), "within": ["width"]}
        if row.scale == "beta":
            expected: Any = beta_contrast(table, **options)
            sd = expected.pseudo_values.std()
        else:
            differences = contrast(table, **options).differences
            expected, sd = SEED_MODELS[row.model](differences), np.std(differences, ddof=1)
        assert (row.estimate, row.low, row.high) == pytest.approx((expected.estimate, *expected.interval))
        assert row.p == pytest.approx(expected.p)
        assert row.standardised == pytest.approx((1 if row.scale == "degrees" else -1) * expected.estimate / sd)


def test_a_strong_effect_agrees_whatever_the_scale() -> None:
    result = curve(tables())
    assert result.conclusion == "agree" and result.sign_agreement == result.share_significant == 1.0
    assert result.statement == "agree: all 42 specifications have one sign, and all are significant at 0.05"
    assert result.p_joint == 2 / 2**7  # all seeds point one way in all specifications
    # Scales hardly change the standardised effect of angles in this range.
    ends = result.to_frame().query("summary == 'final' and checkpoint == 'end' and model == 'mean'")
    assert ends["standardised"].max() - ends["standardised"].min() < 0.2 * ends["standardised"].abs().mean()


def test_an_effect_that_turns_early_on_is_named() -> None:
    result = curve(tables(effects={**EFFECTS, "first epoch": 4.0}))
    assert result.conclusion == "disagree" and result.sign_agreement == pytest.approx(2 / 3)
    assert "14 of 42 specifications lack the sign" in result.statement
    assert "(14 of them significant" in result.statement
    assert result.statement.endswith("most often at checkpoint first epoch (14 of 14)")
    frame = result.to_frame()
    assert (frame["agrees"] == (frame["checkpoint"] != "first epoch")).all()


def test_significance_that_depends_on_a_choice_is_named() -> None:
    weak = tables(effects={"end": -6.0, "half-way": -6.0, "first epoch": -0.4}, seed_by_factor_sd=1.0)
    result = curve(weak, models=["mean"], summaries=["final"], scales=alignment_scales()[:2])
    assert result.conclusion == "agree in sign" and "2 are not significant at 0.05" in result.statement
    assert result.statement.endswith("most often at checkpoint first epoch (2 of 2)")


def test_the_joint_p_is_that_of_brute_force() -> None:
    result = curve(tables(effects=dict.fromkeys(EFFECTS, -0.6)), scales=alignment_scales()[:2])
    frame, columns = result.to_frame(), []
    for scale, summary, checkpoint in (
        frame[["scale", "summary", "checkpoint"]].drop_duplicates().itertuples(index=False)
    ):
        response = "signal_angle_deg" if scale == "degrees" else "signal_cosine"
        table = tables(effects=dict.fromkeys(EFFECTS, -0.6))(response=response, summary=summary, checkpoint=checkpoint)
        table["value"] = table["value"] if scale == "degrees" else -np.arctanh(table["value"])
        differences = np.array(contrast(table, factor="norm", levels=("none", "batch"), within=["width"]).differences)
        columns.append(differences / differences.std(ddof=1))
    values = np.column_stack(columns)
    sizes = [abs(np.median(np.array(signs) @ values)) for signs in itertools.product((1, -1), repeat=7)]
    assert result.p_joint == pytest.approx(np.mean(np.array(sizes) >= sizes[0] - 1e-12))
    assert 0.02 < result.p_joint < 0.98


def test_the_joint_p_holds_its_level() -> None:
    """Twelve specifications of the same seeds, strongly correlated, with no effect in any."""
    generator = np.random.default_rng(8)
    shared, own = generator.normal(0, 1.0, (250, 1, 6)), generator.normal(0, 0.7, (250, 12, 6))
    rejected = np.mean([_joint_p([pd.Series(row) for row in study], 0) < 0.05 for study in shared + own])
    assert rejected < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 250)


def test_a_single_specification_s_joint_p_is_the_sign_flip_p() -> None:
    result = curve(tables(effects=dict.fromkeys(EFFECTS, -0.6)), scales=alignment_scales()[:1], summaries=["final"], checkpoints=["end"], models=["mean"])  # fmt: skip
    assert result.p_joint == result.specifications[0].p and result.conclusion == "agree"


def test_more_than_sixteen_seeds_are_drawn_repeatably() -> None:
    table_of = tables(effects=dict.fromkeys(EFFECTS, -0.3), seeds=20)
    options: dict[str, Any] = {"scales": alignment_scales()[:1], "models": ["mean"], "summaries": ["final"]}
    first, again = (curve(table_of, **options).p_joint for _ in range(2))
    assert first == again != curve(table_of, **options, draw_seed=1).p_joint
    primary = curve(table_of, **options, checkpoints=["end"])
    assert primary.p_joint == pytest.approx(primary.specifications[0].p, abs=0.02)


def test_models_of_one_s_own_take_part() -> None:
    def pooled(table: pd.DataFrame) -> Any:
        wide = table.pivot_table(index="seed", columns="norm", values="value")
        return paired_test(wide["batch"] - wide["none"])

    result = curve(tables(), other_models={"marginal": pooled}, models=["mean"], scales=alignment_scales()[:2])
    frame = result.to_frame().set_index(["scale", "summary", "checkpoint", "model"])["standardised"].unstack()
    np.testing.assert_allclose(frame["marginal"], frame["mean"])
    with pytest.raises(AnalysisError, match=r"got beta\. Give a model of your own a name"):
        curve(tables(), other_models={"beta": pooled})


def test_what_cannot_be_estimated_stays_with_its_reason() -> None:
    ordinary = tables()

    def table_of(*, response: str, summary: str, checkpoint: str) -> pd.DataFrame:
        if checkpoint == "half-way":
            raise AnalysisError("no run has a checkpoint half-way")
        table = ordinary(response=response, summary=summary, checkpoint=checkpoint)
        if response == "signal_cosine":
            table.loc[0, "value"] = 1.0
        return table

    result = curve(table_of)
    frame = result.to_frame()
    assert set(frame.loc[frame["checkpoint"] == "half-way", "reason"]) == {"no run has a checkpoint half-way"}
    assert frame.query("scale == 'fisher z' and checkpoint == 'end'")["reason"].str.contains("atanh is infinite").all()
    assert frame.query("scale == 'beta' and checkpoint == 'end'")["reason"].str.contains("at a bound").all()
    assert result.warnings == ("30 of 42 specifications could not be estimated",)
    assert result.conclusion == "agree" and "all 12 specifications" in result.statement
    nothing = curve(table_of, checkpoints=["half-way"])
    assert nothing.conclusion == "not estimable" and np.isnan(nothing.p_joint)
    assert "the primary specification could not be estimated" in nothing.warnings[1]


def test_empty_or_unknown_choices_are_refused() -> None:
    with pytest.raises(AnalysisError, match="mean, signed rank, trimmed mean; got median"):
        curve(tables(), models=["median"])
    with pytest.raises(AnalysisError, match="got an empty list"):
        curve(tables(), summaries=[])
