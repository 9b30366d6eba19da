"""What becomes of samples' numbers, against numpy's own functions of one row at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from alignkit.columns import MEASURE_COLUMNS
from alignkit.measures.measure import BUILT_IN, measure_class
from alignkit.measures.reductions import columns as columns_of_classes
from alignkit.settings.study_options import Settings

SAMPLES, MEMBERS, LAYERS = 9, 2, 3
OF_SAMPLES = (
    "cosine", "angle_deg", "delta_cosine", "t_length", "g_length", "h_length", "delta_length", "ceiling",
    "delta_angle_deg", "centred_angle_deg",
)  # fmt: skip
OF_NETWORKS = (
    "gradient_cosine", "effective_rank", "weight_cosine", "jacobian_cosine", "t_sum_length", "null_mean", "null_sd",
    "null_p", "gradient_angle_deg", "gradient_stability",
)  # fmt: skip


OF_STEP = {"step_cosine", "step_angle_deg", "update_ratio"}


def columns(layers, groups):
    return columns_of_classes(layers, map(measure_class, groups))


def _found(seed: int = 0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {**dict.fromkeys(OF_SAMPLES, (MEMBERS, SAMPLES)), **dict.fromkeys(OF_NETWORKS, (MEMBERS,))}
    return [
        {name: torch.rand(size, dtype=torch.float64, generator=generator) for name, size in sizes.items()}
        for _ in range(LAYERS)
    ]


@pytest.mark.parametrize("missing", [0, 1, 2, SAMPLES - 1, SAMPLES])
def test_missing_samples_are_left_out_and_counted(missing):
    layers = _found()
    for values in layers:
        values["cosine"][1, :missing] = torch.nan
    measured = columns(layers, ["signal", "size"])
    for layer, values in enumerate(layers):
        present = values["cosine"][1, missing:].numpy()
        gains = (values["t_length"] / values["g_length"])[1, missing:].numpy()
        wanted = {
            "signal_cosine": present.mean() if len(present) else math.nan,
            "signal_cosine_sd": present.std(ddof=1) if len(present) > 1 else math.nan,
            "undefined": missing,
            "signal_gain": np.median(gains) if len(present) else math.nan,
            "projection": (gains * present).mean() if len(present) else math.nan,
        }
        for name, value in wanted.items():
            assert measured[name][1, layer] == pytest.approx(value, rel=1e-12, nan_ok=True), name
        assert measured["undefined"][0, layer] == 0


def test_a_gate_is_taken_over_the_samples_that_have_a_signal():
    layers = _found()
    layers[0]["t_length"][0, 3:-2] = 0.0
    layers[0]["delta_length"][0, -2:] = torch.inf  # what is not finite has no length either
    gate = columns(layers, ["size"])["gate"]
    wanted = np.median((layers[0]["delta_length"] / layers[0]["t_length"])[0, :3].numpy())
    assert gate[0, 0] == pytest.approx(wanted, rel=1e-12)


def test_common_mode_spans_zero_to_one():
    layers = _found()
    for layer, of_sum in enumerate((2.0 * SAMPLES, 0.0, 0.0)):  # all samples alike; opposite ones; no signal at all
        layers[layer]["t_length"].fill_(2.0 * (layer < 2))
        layers[layer]["t_sum_length"].fill_(of_sum)
    found = columns(layers, ["common_mode"])["common_mode"][0]
    assert found[:2].tolist() == pytest.approx([1.0, 0.0]) and math.isnan(found[2])


def test_a_layer_s_drawn_null_keeps_its_p_beside_one_that_is_known():
    layers = _found()
    for values in layers:
        values["null_p"].fill_(torch.nan)
    layers[1]["null_p"].fill_(0.25)
    layers[2]["null_sd"].fill_(torch.nan)
    measured = columns(layers, ["chance"])
    z = (layers[0]["cosine"].mean(1) - layers[0]["null_mean"]) / layers[0]["null_sd"]
    assert measured["chance_z"][:, 0] == pytest.approx(z.numpy(), rel=1e-12)
    assert measured["chance_p"][:, 0] == pytest.approx([math.erfc(abs(each) / math.sqrt(2)) for each in z.tolist()])
    assert (measured["chance_p"][:, 1] == 0.25).all()
    assert np.isnan(measured["chance_z"][:, 2]).all() and np.isnan(measured["chance_p"][:, 2]).all()


def test_every_column_is_of_a_group_and_every_group_but_the_step_s_has_its_columns():
    groups = Settings().probe.groups
    assert set(BUILT_IN) == set(groups)
    assert set(columns(_found(), groups - {"step"})) == set(MEASURE_COLUMNS) - OF_STEP


def test_a_network_s_columns_do_not_depend_on_the_others():
    layers = _found(seed=3)
    both = columns(layers, set(BUILT_IN) - {"step"})
    alone = columns(
        [{name: values[1:] for name, values in layer.items()} for layer in layers], set(BUILT_IN) - {"step"}
    )
    for name, values in alone.items():
        assert np.array_equal(values[0], both[name][1], equal_nan=True), name
