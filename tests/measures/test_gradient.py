"""Every way to the cosine of two weight gradients, against the gradients themselves in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine import cohort_of, cosine_rounding, members_of

from alignkit.measures import gradient
from alignkit.measures.angles import Directions, angle_deg, frobenius_cosine
from alignkit.measures.gradient import from_samples, of_gradients, update_angle_deg
from alignkit.measures.probe import Probe, probe_mode
from alignkit.rules import rule_class
from alignkit.rules.bp import BP

MEMBERS, SAMPLES = 5, 10


def _layer(inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Activations and two walks' deltas, float32: of member 1 the samples all but cancel, of member 2 the two walks all
    but agree, of member 3 they are the same, of member 4 one has nothing to say."""
    generator = torch.Generator().manual_seed(inputs)
    h = torch.randn(MEMBERS, SAMPLES, inputs, generator=generator).tanh()
    own, reference = torch.randn(2, MEMBERS, SAMPLES, outputs, generator=generator)
    half = SAMPLES // 2
    h[1, half:], own[1, half:] = h[1, :half] + 1e-4 * h[1, half:], 1e-4 * own[1, half:] - own[1, :half]
    own[2] = reference[2] + 1e-3 * own[2]
    own[3] = reference[3]
    own[4] = 0.0
    return h, own, reference


def _cosines(h, own, reference):
    return _found(h, own, reference)["gradient_cosine"]


def _found(h, own, reference):
    return from_samples(h, Directions(own), Directions(reference))


def _exact(h, own, reference):
    return frobenius_cosine(*(delta.double().mT @ h.double() for delta in (own, reference)))


@pytest.mark.parametrize("inputs,outputs", [(64, 32), (33, 17), (20, 50)])
def test_cosines_from_samples_are_those_of_the_gradients(inputs, outputs):
    tensors = _layer(inputs, outputs)
    found, wanted, allowed = _cosines(*tensors), _exact(*tensors), cosine_rounding(*tensors)
    assert ((found - wanted).abs() <= allowed)[:4].all() and found[4].isnan()
    # of member 2, an angle of .06 degrees, too: it is off by what its gradients are turned
    angles = [torch.acos(cosine[2]).item() for cosine in (found, wanted)]
    assert abs(angles[0] - angles[1]) <= allowed[2].item() < 0.01 * angles[1]
    assert found[3].item() == pytest.approx(1.0, abs=inputs * outputs * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("scales", [(1e-25, 1.0), (1e25, 1e-10), (1.0, 1e-35), (1e-10, 1e-20), (1e12, 1e12)])
def test_cosines_from_samples_hold_to_the_ends_of_float32(scales):
    h, own, reference = _layer(64, 32)
    tensors = h * scales[0], own * scales[1], reference
    found = _cosines(*tensors)
    assert ((found - _exact(*tensors)).abs() <= cosine_rounding(*tensors))[:4].all() and found[4].isnan()


@pytest.mark.parametrize("inputs,outputs", [(64, 32), (33, 17)])
def test_cosines_from_samples_do_not_depend_on_company(inputs, outputs):
    tensors = _layer(inputs, outputs)
    together = _cosines(*tensors)
    for member in range(MEMBERS - 1):
        alone = _cosines(*(tensor[member : member + 1].clone() for tensor in tensors))
        pair = _cosines(*(tensor[[member, 1]] for tensor in tensors))
        assert alone[0] == together[member] == pair[0]


@pytest.mark.parametrize("inputs,outputs", [(64, 32), (33, 17), (20, 50)])
def test_angles_and_lengths_from_samples_are_those_of_the_gradients(inputs, outputs):
    tensors = _layer(inputs, outputs)
    h, *deltas = (tensor.double() for tensor in tensors)
    gradients = [(delta.mT @ h).flatten(1) for delta in deltas]
    found, wanted = _found(*tensors), angle_deg(*gradients)
    # an angle is off by what its gradients are turned, and near 90 degrees by what its cosine is off
    allowed = torch.rad2deg(2.0 * cosine_rounding(*tensors))
    assert ((found["gradient_angle_deg"] - wanted).abs() <= allowed)[:3].all()
    assert found["gradient_angle_deg"][3] < 1e-5 and found["gradient_angle_deg"][4].isnan()
    assert torch.allclose(found["bp_gradient_length"], gradients[1].norm(dim=1), rtol=1e-5)


def test_the_whole_update_s_angle_is_that_of_the_layers_scaled_and_joined():
    generator = torch.Generator().manual_seed(2)
    layers = []
    pairs = []
    for size, scale in ((30, 1e-9), (7, 3.0), (12, 1.0)):
        own, bp = torch.randn(2, 3, size, generator=generator, dtype=torch.float64)
        own[1] = bp[1] * 2.0 + 1e-9 * own[1]  # an angle of next to nothing
        bp = bp * scale
        bp[2] *= float(size != 7)  # a layer without a gradient has no share
        layers.append(of_gradients(own, bp))
        pairs.append((own / own.norm(dim=1, keepdim=True) * bp.norm(dim=1, keepdim=True), bp))
    wanted = angle_deg(*(torch.cat(each, 1) for each in zip(*pairs, strict=True)))
    assert torch.allclose(update_angle_deg(layers), wanted, rtol=1e-6, atol=0.0)
    assert 0 < wanted[1] < 1e-6
    cosines = torch.stack([layer["gradient_cosine"] for layer in layers])
    squares = torch.stack([bp.square().sum(1) for _, bp in pairs])
    mean = (torch.where(squares > 0, squares * cosines, 0.0)).sum(0) / squares.sum(0)
    assert torch.allclose(torch.cos(torch.deg2rad(wanted)), mean, rtol=1e-12)
    layers[1] = of_gradients(torch.zeros(3, 7).double(), pairs[1][1])  # a layer that the rule does not move
    assert update_angle_deg(layers).isnan().tolist() == [True, True, False]
    nothing = of_gradients(torch.zeros(1, 4).double(), torch.zeros(1, 4).double())
    assert update_angle_deg([nothing]).isnan().all()


@pytest.mark.parametrize("mode,reference_mode", [("batch", None), ("train", None), ("train", "batch")])
def test_a_probe_takes_each_layer_s_cosine_by_some_way_to_the_same_number(mode, reference_mode, monkeypatch):
    ways = []

    def watched(*arguments):
        ways.append(arguments[0].shape[-1])
        return from_samples(*arguments)

    monkeypatch.setattr(gradient, "from_samples", watched)
    probe = {"samples": SAMPLES, "mode": mode, "reference_mode": reference_mode, "measures": ["gradient"]}
    network = {"widths": [40, 30, 8, 50], "dropout": 0.3, "norm": "batch"}
    members = members_of(3, network=network, probe=probe, dtype="float32")
    net, x, targets = cohort_of(members, shape=(24,), samples=SAMPLES)
    rule = rule_class("dfa")(net, members)
    measured, *_ = Probe(net, rule, members, x[0], targets[0]).measure(0)
    walked = []
    for teacher, name in ((rule, mode), (BP(net, members), reference_mode or mode)):
        forward_pass = net.forward(x[:1].expand_as(x), targets[:1].expand_as(targets), probe_mode(name, step=0))
        walked.append((forward_pass, net.backward(forward_pass, teacher)[1]))
    for layer in range(1, 5):
        factors = [(forward_pass.inputs[layer - 1], deltas[layer - 1]) for forward_pass, deltas in walked]
        wanted = frobenius_cosine(*(delta.double().mT @ h.double() for h, delta in factors))
        allowed = torch.maximum(*(cosine_rounding(h, delta) for h, delta in factors))
        assert (np.abs(measured["gradient_cosine"][:, layer - 1] - wanted.numpy()) <= allowed.numpy()).all(), layer
    # from the last layer down: too few units, two from the samples; inputs of the first one are condensed
    assert ways == ([] if reference_mode else [30, 40])


def test_nothing_of_a_probe_depends_on_company_where_layers_are_wide():
    settings = {"network": {"widths": [70, 60, 50]}, "probe": {"samples": SAMPLES}, "dtype": "float32"}
    members = members_of(4, **settings)

    _, x, targets = cohort_of(members, shape=(24,), samples=SAMPLES)

    def measured(chosen):
        net, *_ = cohort_of(chosen, shape=(24,), samples=SAMPLES)
        return Probe(net, rule_class("dfa")(net, chosen), chosen, x[0], targets[0]).measure(0)[0]

    together = measured(members)
    for column, values in measured(members[:1]).items():
        assert np.array_equal(values[0], together[column][0], equal_nan=True), column
