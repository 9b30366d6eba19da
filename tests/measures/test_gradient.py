"""Every way to the cosine of two weight gradients, against the gradients themselves in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine import cohort_of, cosine_rounding, members_of

from alignkit.measures import gradient
from alignkit.measures.angles import Directions, frobenius_cosine
from alignkit.measures.gradient import from_samples
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
    measured, _ = Probe(net, rule, members, x[0], targets[0]).measure(0)
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
