"""Products are float32 whatever the process was set to, and less precise only where a study asks for it and can have
it."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from alignkit.cli.main import plan
from alignkit.data import loading
from alignkit.errors import StudyError
from alignkit.execution.run_study import run_study
from alignkit.networks.members import Member
from alignkit.networks.network import Network
from alignkit.networks.stages import EVALUATION
from alignkit.numerics.precision import check_precisions, multiplying_in, reproducible, supported_precisions
from alignkit.settings.study_options import Settings
from alignkit.settings.validation import validated, with_tags
from alignkit.study.plan import expand
from alignkit.study.study import Study
from alignkit.training.cohorts import Cohort
from alignkit.training.loop import train_cohort
from alignkit.training.memory import DataShape

DIGITS = loading.load(Study.parse({"name": "t"}).data)


HAS_BF16 = "bf16" in supported_precisions("cpu")
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this processor has no products of bf16 factors")


def _rounding() -> float:
    """How far a product is from that of its factors: 2^-10, which bf16 has no bit for, or nothing."""
    factor = torch.full((2, 64, 64), 1.0 + 2.0**-10)
    return (torch.bmm(factor, torch.eye(64).expand(2, 64, 64)) - factor).abs().max().item()


def _tables(count: int, *, first: int = 0, **training: object) -> dict[str, pd.DataFrame]:
    sections = {
        "network": {"width": 40, "depth": 2, "norm": "batch", "dropout": 0.1},
        "training": {"epochs": 1, "batch_size": 33, **training},
        "probe": {"samples": 33, "log_steps": 2},
    }
    study = Study.parse({"name": "t", "rules": ["dfa"], "seeds": list(range(first, first + count)), **sections})
    runs = expand(study, fingerprint=lambda section: "digits").runs
    return train_cohort(Cohort("c", "dfa", runs, DataShape(DIGITS.shape, DIGITS.outputs, len(DIGITS.train))), DIGITS)


def test_products_are_float32_whatever_the_process_is_set_to():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        allowed = _rounding()
        with reproducible("cpu"):
            assert _rounding() == 0.0
        assert _rounding() == allowed and torch.get_float32_matmul_precision() == "medium"
        assert bool(allowed) == HAS_BF16
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_precision_that_a_device_does_not_have_is_refused_before_anything_is_written(tmp_path):
    check_precisions(["float32"], "cpu")
    study = tmp_path / "own.toml"
    study.write_text('name = "own"\nseeds = 1\n[training]\nmatmul_precision = "tf32"\n')
    refused = pytest.raises(StudyError, match=r'own.toml: training.matmul_precision: expected "float32".*got "tf32"')
    with refused:
        run_study(str(study), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
    with refused:
        plan(str(study), device="cpu")


def test_low_precision_is_for_float32():
    sections = with_tags({"training": {"dtype": "float64", "matmul_precision": "bf16"}})
    with pytest.raises(StudyError, match=r'"bf16" is for dtype = "float32"'):
        validated(Settings, sections, source="own")


@needs_bf16
def test_a_pass_in_bf16_is_that_of_rounded_factors():
    settings = Settings.model_validate(with_tags({"network": {"width": 48, "activation": "linear", "depth": 1}}))
    network = Network([Member(settings, seed) for seed in (0, 1)], shape=(64,), outputs=10)
    x = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(2, 64, dtype=torch.int64)
    with reproducible("cpu"), torch.no_grad():
        with multiplying_in("bf16", "cpu"):
            found = network.forward(x, targets, EVALUATION).hidden[0]
        exact = network.forward(x, targets, EVALUATION).hidden[0]
    rounded = [factor.bfloat16().double() for factor in (x, network.weight(1).mT)]
    bias = network.parameters.views[1, "bias"][:, None].double()
    wanted, sizes = torch.bmm(*rounded) + bias, torch.bmm(*(factor.abs() for factor in rounded)) + bias.abs()
    assert ((found.double() - wanted).abs() <= (64 + 2) * torch.finfo(torch.float32).eps * sizes).all()
    assert (found - exact).abs().max() > 1e-3


@needs_bf16
def test_training_in_bf16_is_measured_in_float32_and_keeps_members_independent():
    low, high = _tables(3, matmul_precision="bf16"), _tables(3)
    measures = low["layers"].columns.difference(["run_id", "step", "layer"])
    at_start, at_end = (
        [tables["layers"].loc[tables["layers"]["step"] == step, measures] for tables in (low, high)]
        for step in (0, low["layers"]["step"].max())
    )
    pd.testing.assert_frame_equal(*at_start, check_exact=True)  # nothing was trained yet
    cosines = [frame["signal_cosine"].to_numpy() for frame in at_end]
    assert 1e-6 < abs(cosines[0] - cosines[1]).max() < 0.05
    alone = _tables(1, first=2, matmul_precision="bf16")
    for table, frame in alone.items():
        wanted = low[table][low[table]["run_id"].isin(frame["run_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(frame.reset_index(drop=True), wanted, check_exact=True)
