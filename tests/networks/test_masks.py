"""Frozen weights and masked signals: what is masked, what stays, and that nothing else changes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from engine import cohort_of, members_of

from alignkit.measures.probe import Probe
from alignkit.networks.masks import Masks
from alignkit.networks.parameters import per_member
from alignkit.networks.stages import training_mode
from alignkit.rules.bp import BP
from alignkit.rules.dfa import DFA
from alignkit.training.optimisers import SGD

BOTTLENECK = {"widths": [6, 5], "layers": [{"signal_masked": 0.4}, {"frozen": 0.5}]}


def _network(network=BOTTLENECK, count=2, samples=6, **sections):
    training = {"batch_size": samples, **sections.pop("training", {})}
    members = members_of(count, network=network, training=training, **sections)
    return members, *cohort_of(members, shape=(4,), samples=samples)


def test_masks_keep_about_the_share_asked_for_and_differ_by_seed_and_draw():
    members, net, _, _ = _network({"width": 60, "depth": 2, "frozen": 0.3, "signal_masked": 0.9}, samples=50)
    for layer in (1, 2):
        assert net.masks.trained[layer]["weight"].mean().item() == pytest.approx(0.7, abs=0.06)
        assert net.masks.signals[layer].mean().item() == pytest.approx(0.1, abs=0.02)
        assert set(net.masks.signals[layer].unique().tolist()) == {0.0, 1.0}
    first, second = net.masks.signals[1]
    assert not torch.equal(first, second)
    other = Masks.of(members, net.layers, net.parameters.storage, draw=1)
    assert not torch.equal(other.signals[1], net.masks.signals[1])
    again = Masks.of(members, net.layers, net.parameters.storage)
    assert torch.equal(again.signals[1], net.masks.signals[1])


def test_a_lower_share_keeps_all_that_a_higher_one_keeps():
    low, high = (_network({"width": 30, "frozen": share, "signal_masked": share})[1].masks for share in (0.2, 0.6))
    assert (low.signals[1] >= high.signals[1]).all() and (low.trained[2]["weight"] >= high.trained[2]["weight"]).all()


def test_without_masks_there_are_none():
    assert _network({"width": 6})[1].masks is None


@pytest.mark.parametrize("rule", [BP, DFA])
def test_frozen_weights_never_move_and_the_others_take_their_own_gradient(rule):
    members, net, x, targets = _network()
    free = _network({"widths": [6, 5], "layers": [{"signal_masked": 0.4}, {}]})[1]
    before = net.parameters.copy()
    rates = (per_member([0.1, 0.2], x), per_member([0.05, 0.1], x))
    for each in (net, free):
        each.descend(each.forward(x, targets, training_mode(1)), rule(each, members), rates)
    for name, mask in net.masks.trained[2].items():
        moved, old = net.parameters.views[2, name], before.views[2, name]
        assert torch.equal(moved[mask == 0], old[mask == 0]) and (moved[mask == 1] != old[mask == 1]).any()
        assert torch.allclose(moved[mask == 1], free.parameters.views[2, name][mask == 1], rtol=0, atol=1e-14)
    assert torch.equal(net.parameters.views[1, "weight"], free.parameters.views[1, "weight"])


def test_descent_is_a_gradient_step_under_masks():
    members, net, x, targets = _network()
    twin = _network()[1]
    rates = (per_member([0.1, 0.2], x), per_member([0.05, 0.1], x))
    net.descend(net.forward(x, targets, training_mode(1)), DFA(net, members), rates)
    gradients = twin.parameters.like()
    twin.write_gradients(twin.forward(x, targets, training_mode(1)), DFA(twin, members), gradients)
    SGD(twin.parameters, rates=rates, momentum=0.0).step(gradients)
    assert torch.allclose(net.parameters.storage, twin.parameters.storage, rtol=0, atol=1e-13)


def test_a_masked_signal_teaches_and_is_handed_down_without_its_entries():
    members, net, x, targets = _network({"widths": [6, 5, 4], "layers": [{}, {"signal_masked": 0.4}, {}]})
    forward_pass = net.forward(x, targets, training_mode(1))
    signals, _ = net.backward(forward_pass, BP(net, members))
    whole, deltas = net.backward(dataclasses.replace(forward_pass, masks=None), BP(net, members))
    mask = net.masks.signals[2]
    assert torch.equal(signals[1], whole[1] * mask) and torch.equal(signals[2], whole[2])
    expected = net.transport(2, net.pull_back(2, whole[1] * mask, forward_pass, None))
    assert torch.allclose(signals[0], expected, rtol=0, atol=1e-14) and not torch.allclose(signals[0], whole[0])


def test_samples_beyond_the_batch_take_its_masks_over_again():
    _, net, _, _ = _network()
    ones = torch.ones(2, 15, 6, dtype=torch.float64)
    masked, mask = net.masks.signal(1, ones), net.masks.signals[1]
    assert torch.equal(masked, torch.cat([mask, mask, mask[:, :3]], 1))


def _measured(members, net, x, targets):
    return Probe(net, DFA(net, members), members, x[0], targets[0]).measure(0)


@pytest.mark.parametrize("masks,expected", [("shared", 1.0), ("none", 0.7**0.5), ("independent", 0.7)])
def test_what_masks_do_to_the_angle_of_one_signal(masks, expected):
    """A signal against itself: sqrt(p) where the reference has no mask, p where it has one of its own, by construction."""
    network = {"widths": [900, 5], "layers": [{"signal_masked": 0.3}, {}], "activation": "linear"}
    probe = {"samples": 40, "reference_masks": masks, "measures": "angles"}
    members, net, x, targets = _network(network, samples=40, probe=probe, feedback={"points": [2]})
    rule = DFA(net, members)
    rule.matrices[1] = net.weight(3).clone()  # then the signals of the two rules are one and the same
    measures, output_cosine, _ = Probe(net, rule, members, x[0], targets[0]).measure(0)
    assert measures["signal_cosine"][:, 0] == pytest.approx(expected, abs=0.02 if expected < 1 else 1e-12)
    assert measures["signal_cosine"][:, 1] == pytest.approx(1.0) and output_cosine == pytest.approx(1.0)


def test_the_ceiling_of_a_masked_signal_is_the_best_that_its_feedback_can_do():
    network = {"widths": [12, 11], "layers": [{"signal_masked": 0.4}, {}]}
    members, net, x, targets = _network(network, count=1, probe={"samples": 6})
    rule = DFA(net, members)
    measures, *_ = Probe(net, rule, members, x[0], targets[0]).measure(0)
    forward_pass = net.forward(x, targets, training_mode(1))
    g = net.backward(forward_pass, BP(net, members))[0][0][0]
    centred = rule.matrices[0][0] - rule.matrices[0][0].mean(0)
    best = []
    for signal, mask in zip(g, net.masks.signals[1][0], strict=True):
        rows = centred * mask
        fitted = rows.T @ torch.linalg.lstsq(rows.T, signal[:, None], driver="gelsd").solution
        best.append((fitted.norm() / signal.norm()).item())
    assert measures["ceiling_cosine"][0, 0] == pytest.approx(sum(best) / len(best), abs=1e-9)
    assert measures["ceiling_cosine"][0, 0] > measures["signal_cosine"][0, 0]


def test_members_under_masks_do_not_depend_on_their_company():
    members, net, x, targets = _network(count=3, training={"dtype": "float32"}, samples=8)
    alone, single = _network(count=3, training={"dtype": "float32"}, samples=8)[0][1:2], None
    single = type(net)(alone, shape=(4,), outputs=4)
    rates = (per_member([0.1] * 3, x), per_member([0.1] * 3, x))
    net.descend(net.forward(x, targets, training_mode(1)), DFA(net, members), rates)
    own = (per_member([0.1], x), per_member([0.1], x))
    single.descend(single.forward(x[1:2], targets[1:2], training_mode(1)), DFA(single, alone), own)
    for key, view in net.parameters.views.items():
        assert torch.equal(view[1], single.parameters.views[key][0]), key
