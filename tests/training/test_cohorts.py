"""A run's numbers do not depend on its company."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from alignkit.data import loading
from alignkit.rules.base import Rule
from alignkit.study.plan import expand
from alignkit.study.study import Study
from alignkit.training.cohorts import Cohort, cohorts, data_key
from alignkit.training.loop import train_cohort
from alignkit.training.memory import DataShape, member_bytes

DIGITS = loading.load(Study.parse({"name": "t"}).data)
SHAPE = DataShape(DIGITS.shape, DIGITS.outputs, len(DIGITS.train))


def cohort(count, *, rule="dfa", first=0, data_shape=SHAPE, **sections):
    study = Study.parse({"name": "t", "rules": [rule], "seeds": list(range(first, first + count)), **sections})
    return Cohort("c", rule, expand(study, fingerprint=lambda section: "digits").runs, data_shape)


class ByAutograd(Rule):
    """BP at the last hidden layer, by autograd."""

    def teaching_signal(self, layer, forward_pass, delta_above):
        with torch.enable_grad():
            h = forward_pass.hidden[layer - 1].detach().requires_grad_()
            weight, bias = (self.network.parameters.views[layer + 1, name] for name in ("weight", "bias"))
            y = h @ weight.mT + bias[:, None]
            loss = torch.nn.functional.cross_entropy(y.flatten(0, 1), forward_pass.targets.flatten(), reduction="sum")
            return torch.autograd.grad(loss, h)[0]


def small(dataset, *, train=100):
    cut = dataclasses.replace(dataset, train=loading.Split(dataset.train.inputs[:train], dataset.train.targets[:train]))
    return cut


SETTINGS = {
    "odd": dict(network={"widths": [37, 50], "activation": "sigmoid"}, training={"epochs": 2, "batch_size": 33}),
    "gelu-batch-dropout": dict(
        network={"width": 31, "depth": 3, "activation": "gelu", "norm": "batch", "dropout": 0.2, "input_dropout": 0.1},
        training={"epochs": 2, "batch_size": 25, "momentum": 0.9},
    ),
    "adam-layer": dict(
        network={"width": 16, "activation": "erf", "norm": "layer"}, training={"epochs": 2, "batch_size": 20, "optimiser": "adam", "lr": 0.01}
    ),
    "norm-matched": dict(network={"width": 24, "activation": "relu"}, training={"epochs": 2, "batch_size": 32, "update": "norm_matched"}),
}  # fmt: skip


@pytest.mark.parametrize(
    "network,inputs,outputs,batch",
    [([24], 8, 1, 16), ([10], 12, 1, 16), ([16, 4], 4, 10, 8), ([8], 8, 3, 4)],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_products_too_are_the_same_alone_and_in_company(network, inputs, outputs, batch, dtype):
    task = "regression" if outputs == 1 else "classification"
    section = {"name": "teacher", "task": task, "inputs": inputs, "outputs": outputs, "samples": 200}
    study = {
        "data": section, "network": {"widths": network}, "probe": {"samples": 11, "log_steps": 2, "redraws": 20},
        "training": {"epochs": 1, "batch_size": batch, "dtype": dtype, "loss": "squared_error" if outputs == 1 else "cross_entropy"},
        "feedback": {"law": "uniform"},
    }  # fmt: skip
    dataset = loading.load(Study.parse({"name": "t", **study}).data).to("cpu", getattr(torch, dtype))
    shape = DataShape(dataset.shape, dataset.outputs, len(dataset.train))
    full = train_cohort(cohort(5, data_shape=shape, **study), dataset)
    alone = train_cohort(cohort(1, first=3, data_shape=shape, **study), dataset)
    for table, frame in alone.items():
        same = full[table][full[table]["run_id"].isin(frame["run_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(same, frame.reset_index(drop=True), check_exact=True)


def test_data_and_feedback_start_at_a_cache_line():
    for _ in range(20):
        loaded = loading.load(Study.parse({"name": "t"}).data)
        assert loaded.train.inputs.data_ptr() % 64 == 0 and loaded.test.inputs.data_ptr() % 64 == 0


# an imposed angle needs even sizes; 38 floats still end between cache lines
TURNED = {
    "turned": dict(network={"widths": [38, 50]}, training={"epochs": 2, "batch_size": 33}, feedback={"angle_deg": 70.0}),
    "turned-batch": dict(network={"width": 30, "norm": "batch"}, training={"epochs": 2, "batch_size": 25}, feedback={"angle_deg": 30.0}),
}  # fmt: skip
COMPANY = [(rule, name, settings) for rule in ("dfa", "bp", "fa") for name, settings in SETTINGS.items()]
COMPANY += [("imposed_angle", name, settings) for name, settings in TURNED.items()]


@pytest.mark.parametrize(
    "rule,settings",
    [pytest.param(rule, settings, id=f"{name}-{rule}") for rule, name, settings in COMPANY],
)
def test_an_mlp_member_has_identical_records_alone_in_two_and_in_32(rule, settings):
    dataset = small(DIGITS)
    shape = dataclasses.replace(SHAPE, train_samples=100)
    probe = {"samples": 33, "log_steps": 2}
    full = train_cohort(cohort(32, rule=rule, data_shape=shape, probe=probe, **settings), dataset)
    for first, count in ((5, 1), (30, 2)):
        part = train_cohort(cohort(count, rule=rule, first=first, data_shape=shape, probe=probe, **settings), dataset)
        for table, frame in part.items():
            wanted = full[table][full[table]["run_id"].isin(frame["run_id"])].reset_index(drop=True)
            order = frame.sort_values([c for c in ("step", "run_id", "layer") if c in frame]).reset_index(drop=True)
            wanted = wanted.sort_values([c for c in ("step", "run_id", "layer") if c in wanted]).reset_index(drop=True)
            pd.testing.assert_frame_equal(order, wanted, check_exact=True)


def test_a_rule_of_one_s_own_may_differentiate():
    training = {"epochs": 1, "lr": 0.1, "dtype": "float64"}
    settings = dict(network={"width": 16, "depth": 1}, training=training, probe={"samples": 33})
    dataset = DIGITS.to("cpu", torch.float64)
    own, bp = (train_cohort(cohort(2, rule=rule, **settings), dataset) for rule in (f"{__name__}:ByAutograd", "bp"))
    assert own["layers"]["signal_cosine"].to_numpy() == pytest.approx(1.0)
    losses = [tables["checkpoints"]["train_loss"].to_numpy() for tables in (own, bp)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9) and losses[0][-1] < losses[0][0]


@pytest.mark.parametrize(
    "scalar",
    [
        {"network": {"dropout": 0.3}},
        {"network": {"activation": "leaky_relu", "slope": 0.5}},
        {"training": {"lr": 0.5}},
        {"feedback": {"normalised": False}},
        {"feedback": {"angle_deg": 60.0}},
    ],
)
def test_members_may_differ_in_scalars(scalar):
    rule = "imposed_angle" if "angle_deg" in scalar.get("feedback", {}) else "dfa"
    dataset, shape = small(DIGITS), dataclasses.replace(SHAPE, train_samples=100)
    base = {"network": {"width": 10, "dropout": 0.1}, "training": {"epochs": 1}, "probe": {"samples": 20}}
    if "activation" in scalar.get("network", {}):
        base["network"]["activation"] = "leaky_relu"
    one = cohort(2, rule=rule, data_shape=shape, **base)
    other = cohort(
        1,
        rule=rule,
        data_shape=shape,
        **{key: {**base.get(key, {}), **scalar.get(key, {})} for key in {*base, *scalar}},
    )
    mixed = dataclasses.replace(one, runs=(*one.runs, *other.runs))
    tables = train_cohort(mixed, dataset)["runs"]
    alone = train_cohort(other, dataset)["runs"]
    assert tables.iloc[2].equals(alone.iloc[0])


def test_a_cnn_agrees_with_its_company_over_the_first_steps():
    network = {"kind": "cnn", "channels": [4, 6], "kernel": 3, "padding": 1, "pool": 2, "hidden": [12], "norm": "batch"}
    probe = {"samples": 30, "log_steps": 0, "steps": [20]}
    dataset, shape = small(DIGITS, train=400), dataclasses.replace(SHAPE, train_samples=400)

    def layers(count, *, first=0, dtype="float32"):
        training = {"epochs": 1, "batch_size": 20, "dtype": dtype}
        own = cohort(count, first=first, data_shape=shape, network=network, training=training, probe=probe)
        frame = train_cohort(own, dataset.to("cpu", getattr(torch, dtype)))["layers"]
        return frame[frame["run_id"].isin([run.run_id for run in own.runs if run.seed == 2])]

    full, alone, exact = layers(4), layers(1, first=2), layers(1, first=2, dtype="float64")
    for column in ("signal_cosine", "delta_cosine", "gradient_cosine", "step_cosine"):
        found, wanted, truth = (frame[column].to_numpy() for frame in (full, alone, exact))
        rounding = np.nanmax(np.abs(wanted - truth))  # what another order of the sums may change as well
        assert rounding < 1e-3 and found == pytest.approx(wanted, abs=8 * rounding, nan_ok=True)


def test_one_member_s_divergence_harms_no_other():
    dataset, shape = small(DIGITS), dataclasses.replace(SHAPE, train_samples=100)
    base = {
        "network": {"width": 10, "activation": "linear"},
        "training": {"epochs": 3, "loss": "squared_error", "lr": 0.05},
        "probe": {"samples": 20},
    }
    healthy = cohort(2, data_shape=shape, **base)
    base["training"]["lr"] = 1e6
    sick = cohort(1, first=7, data_shape=shape, **base)
    alone = train_cohort(healthy, dataset)
    mixed = train_cohort(dataclasses.replace(healthy, runs=(*sick.runs, *healthy.runs)), dataset)
    for table in alone:
        same = mixed[table][mixed[table]["run_id"].isin(alone[table]["run_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(same, alone[table].reset_index(drop=True), check_exact=True)
    row = mixed["runs"].iloc[0]
    assert row["diverged"] and 1 <= row["diverged_step"] <= 9
    layers = mixed["layers"][mixed["layers"]["run_id"] == row["run_id"]]
    after = layers[layers["step"] >= row["diverged_step"]]
    assert after["signal_cosine"].isna().all() and (after["undefined"] == 20).all() and len(after)
    assert layers[layers["step"] == 0]["signal_cosine"].notna().all()


def test_the_step_of_divergence_is_the_first_with_a_non_finite_loss_or_parameter():
    dataset, shape = small(DIGITS), dataclasses.replace(SHAPE, train_samples=100)
    settings = {
        "network": {"width": 8, "activation": "linear"},
        "training": {"epochs": 4, "loss": "squared_error", "lr": 1e4},
    }
    probe = {"samples": 20, "log_steps": 0, "every_epochs": 0, "steps": list(range(13)), "measures": ["signal"]}
    tables = train_cohort(cohort(1, rule="bp", data_shape=shape, probe=probe, **settings), dataset)
    step = int(tables["runs"]["diverged_step"].iloc[0])
    losses = tables["checkpoints"].set_index("step")["train_loss"]
    assert losses.loc[: step - 2].notna().all() and losses.loc[step:].isna().all()


def test_pairs_share_streams_and_the_probe_batch():
    dataset, shape = small(DIGITS), dataclasses.replace(SHAPE, train_samples=100)
    base = {"network": {"width": 10, "dropout": 0.2}, "training": {"epochs": 1}, "probe": {"samples": 20}}
    start = {}
    for rule in ("bp", "dfa"):
        tables = train_cohort(cohort(2, rule=rule, data_shape=shape, **base), dataset)
        first = tables["layers"][tables["layers"]["step"] == 0]
        start[rule] = first.drop(columns=["run_id", "signal"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(start["bp"], start["dfa"], check_exact=True)  # the bystander is the twin's feedback


def test_cohorts_hold_every_run_once_and_are_a_function_of_the_study():
    study = Study.parse(
        {
            "name": "t", "seeds": 12, "rules": ["bp", "dfa"],
            "designs": {"d": {"factors": {"network.width": [8, 16], "network.dropout": [0.0, 0.1, 0.2], "network.initialisation": ["pytorch", "xavier"]}}},
        }
    )  # fmt: skip
    plan = expand(study, fingerprint=lambda section: "digits")
    found = cohorts(plan, {data_key(study.settings): SHAPE}, device="cpu")
    assert sorted(run.run_id for cohort in found for run in cohort.runs) == sorted(run.run_id for run in plan.runs)
    assert all(len(cohort.runs) <= 32 for cohort in found)
    assert [cohort.cost for cohort in found] == sorted((cohort.cost for cohort in found), reverse=True)
    for cohort_ in found:
        assert len({(run.settings.network.width, run.settings.network.dropout > 0) for run in cohort_.runs}) == 1
    assert found == cohorts(plan, {data_key(study.settings): SHAPE}, device="cpu")


def test_the_memory_model_covers_the_parameters():
    runs = cohort(1, network={"width": 800}).runs
    settings = runs[0].settings
    weights = 4 * (64 * 800 + 2 * 800 * 800 + 800 * 10)
    assert member_bytes(settings, SHAPE, "cpu") > 3 * weights


def test_the_memory_model_covers_the_rotations_of_wide_layers_on_few_inputs():
    settings = cohort(1, rule="imposed_angle", network={"widths": [4000]}).runs[0].settings
    assert member_bytes(settings, dataclasses.replace(SHAPE, shape=(4,)), "cpu") > 4 * 4000**2


def test_training_learns_and_alignment_rises():
    tables = train_cohort(cohort(3, network={"width": 32, "depth": 2}, training={"epochs": 10, "lr": 0.1}), DIGITS)
    assert tables["runs"]["test_accuracy"].min() > 0.9
    layers = tables["layers"]
    angle = layers.groupby("step")["signal_angle_deg"].mean()
    assert angle.iloc[0] == pytest.approx(90, abs=8) and angle.iloc[-1] < 75
    assert torch.get_num_threads() == 1
