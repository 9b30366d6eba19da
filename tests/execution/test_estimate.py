"""What a study will cost."""

from __future__ import annotations

import pytest

from alignkit.data import loading
from alignkit.execution.checks import plan_cohorts
from alignkit.execution.estimate import estimate
from alignkit.study.plan import expand
from alignkit.study.study import Study


def cost(**study):
    plan = expand(Study.parse({"name": "t", "seeds": 4, **study}), fingerprint=loading.fingerprint)
    return estimate(plan_cohorts(plan, device="cpu"), device="cpu")


def test_an_estimate_grows_with_the_work_and_leaves_no_trace():
    short = cost(network={"width": 8}, training={"epochs": 1})
    long = cost(network={"width": 8}, training={"epochs": 500})
    assert 0 < short.seconds < long.seconds
    assert short.largest_cohort_bytes == long.largest_cohort_bytes > 0
    assert short.data_bytes == 4 * 1197 * 64


@pytest.mark.parametrize("section", [{"name": "teacher", "task": "regression"}, {"name": "digits"}])
def test_any_data_can_be_estimated(section):
    loss = "squared_error" if section["name"] == "teacher" else "cross_entropy"
    assert cost(data=section, network={"width": 8, "depth": 1}, training={"epochs": 1, "loss": loss}).seconds > 0
