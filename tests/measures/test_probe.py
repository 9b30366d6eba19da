"""Every measure against a slow oracle: one sample, one member, one layer at a time, in float64."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from engine import Reference, cohort_of, cosine_rounding, members_of, reference_loss

from alignkit.columns import MEASURE_COLUMNS
from alignkit.measures import angles
from alignkit.measures.probe import Probe, probe_mode
from alignkit.measures.schedule import schedule
from alignkit.networks.members import Member
from alignkit.networks.parameters import per_member
from alignkit.networks.stages import training_mode
from alignkit.rules import rule_class
from alignkit.rules.bp import BP
from alignkit.rules.dfa import DFA
from alignkit.rules.feedback import dfa_matrix
from alignkit.settings.probe import ProbeOptions
from alignkit.settings.study_options import Settings
from alignkit.training.optimisers import SGD

SAMPLES = 12
NETWORKS = {
    "tanh": {"widths": [7, 9, 6]},
    "deep": {"widths": [6, 7, 5, 6, 8], "norm": "batch"},
    "relu-narrow": {"width": 3, "depth": 2, "activation": "relu"},
    "batch-dropout": {"width": 8, "norm": "batch", "dropout": 0.3},
    "layer": {"width": 8, "norm": "layer", "activation": "gelu"},
    "local": {
        "kind": "cnn", "channels": [3, 2], "kernel": 3, "padding": 1, "pool": 2, "hidden": [5], "weight_sharing": False,
    },
    "cnn": {"kind": "cnn", "channels": [3, 2], "kernel": 3, "padding": 1, "pool": 2, "hidden": [5], "norm": "batch"},
}  # fmt: skip


def _probe(rule="dfa", network=None, *, count=2, mode="batch", **probe):
    options = {"samples": SAMPLES, "mode": mode, **probe}
    members = members_of(count, network=network or NETWORKS["tanh"], probe=options)
    net, x, targets = cohort_of(members, shape=(2, 8, 8), samples=SAMPLES)
    return net, Probe(net, rule_class(rule)(net, members), members, x[0], targets[0]), members, x[0], targets[0]


def _oracle(net, rule, member, x, targets, *, mode):
    """All measures of one member, by autograd and loops over samples."""
    forward_pass = net.forward(
        x.expand(net.parameters.n_members, *x.shape), targets.expand(net.parameters.n_members, -1), mode
    )
    reference = Reference(net, member, forward_pass, train=mode.batch_statistics)
    output = reference(x)
    loss = reference_loss(net, output, targets)
    signals, deltas = net.backward(forward_pass, rule)
    _, bp_deltas = net.backward(forward_pass, BP(net, rule.members))
    loss.backward(retain_graph=True)
    references = [h.grad.flatten(1).numpy().copy() for h in reference.hidden]  # later derivatives write there
    stability = _stability(net, member, x, targets, mode=mode)
    fixed = _with_fixed_statistics(net, member, forward_pass, x, mode)
    layers = []
    for index, h in enumerate(reference.hidden):
        t, g = signals[index][member].numpy(), references[index]
        delta_t = deltas[index][member].flatten(1).numpy()
        delta_g = bp_deltas[index][member].flatten(1).numpy()
        cosines = [
            float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) if a.any() and b.any() else math.nan
            for a, b in zip(t, g, strict=True)
        ]
        ok = [n for n, c in enumerate(cosines) if not math.isnan(c)]
        inputs = forward_pass.inputs[index][member]
        found = {
            "signal_cosine": np.mean([cosines[n] for n in ok]) if ok else math.nan,
            "signal_cosine_sd": np.std([cosines[n] for n in ok], ddof=1) if len(ok) > 1 else math.nan,
            "signal_angle_deg": np.mean([math.degrees(math.acos(min(1, max(-1, cosines[n])))) for n in ok]),
            "undefined": SAMPLES - len(ok),
            "signal_gain": np.median([np.linalg.norm(t[n]) / np.linalg.norm(g[n]) for n in ok]),
            "projection": np.mean([t[n] @ g[n] / (g[n] @ g[n]) for n in ok]),
            "gate": np.median(
                [np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(delta_t, t, strict=True) if b.any()]
            ),
            "common_mode": SAMPLES * np.sum(t.mean(0) ** 2) / np.sum(t**2),
        }
        pairs = [(a, b) for a, b in zip(delta_t, delta_g, strict=True) if a.any() and b.any()]
        found["delta_cosine"] = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
        found["delta_angle_deg"] = _mean_angle(delta_t, delta_g)
        found["centred_angle_deg"] = _mean_angle(*(_centred(signal) for signal in (t, g)))
        norms = {"teaching_norm": t, "gradient_norm": g, "activation_norm": h.detach().flatten(1).numpy()}
        found |= {name: np.median([np.linalg.norm(row) for row in rows]) for name, rows in norms.items()}
        found["gradient_stability"] = stability[index]
        if inputs.dim() == 2:
            own = sum(np.outer(delta_t[n], inputs[n].numpy()) for n in range(SAMPLES))
        else:
            z, weight = reference.sums[index][1], reference.layers[index].weight
            delta = deltas[index][member].view(z.shape)
            own = torch.autograd.grad(z, weight, delta, retain_graph=True)[0].numpy()
        bp_gradient = reference.layers[index].weight.grad.numpy()
        found["gradient_cosine"] = np.sum(own * bp_gradient) / np.linalg.norm(own) / np.linalg.norm(bp_gradient)
        found["gradient_angle_deg"] = _angle(own, bp_gradient)
        found["bp_gradient"] = bp_gradient.ravel()
        found["own_scaled"] = own.ravel() * np.linalg.norm(bp_gradient) / np.linalg.norm(own)
        hidden = h.detach().flatten(1).numpy()
        covariance = np.cov(hidden.T, bias=True)
        eigenvalues = np.linalg.eigvalsh(np.atleast_2d(covariance))
        found["effective_rank"] = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
        fixed_output, fixed_h = fixed
        jacobian = np.stack(
            [
                torch.autograd.grad(fixed_output[:, c].sum(), fixed_h[index], retain_graph=True)[0]
                .flatten(1)
                .mean(0)
                .numpy()
                for c in range(net.outputs)
            ]
        )
        matrix = rule.matrices[index][member].numpy()
        direct = rule.__class__.__name__ == "DFA" or index + 1 == len(net.hidden_sizes)
        found["jacobian_cosine"] = _cos(matrix, jacobian) if direct else math.nan
        above = net.layers[index + 1 :]
        if not any(layer.convolution for layer in above):
            stands_for = np.eye(net.outputs)
            top = len(net.layers) if direct else index + 2
            if not direct:
                stands_for = np.eye(net.layers[index + 1].weight[0])
            for layer in range(top, index + 1, -1):
                stands_for = stands_for @ net.weight(layer)[member].numpy()
            found["weight_cosine"] = _cos(matrix, stands_for)
        usable = matrix[1:] - matrix[:1] if direct else matrix  # differences span what errors of sum zero can use
        best = []
        for row in g:
            if row.any():
                fit = usable.T @ np.linalg.lstsq(usable.T, row, rcond=None)[0]
                best.append(np.linalg.norm(fit) / np.linalg.norm(row))
        found["ceiling_cosine"] = np.mean(best)
        layers.append(found)
    return layers


def _with_fixed_statistics(net, member, forward_pass, x, mode):
    """The same outputs from a module whose batch norms hold this batch's statistics as constants."""
    reference = Reference(net, member, forward_pass, train=mode.batch_statistics)
    norms = [norm for norm in reference.norms.values() if hasattr(norm, "running_var")] if mode.batch_statistics else []
    counts = {}
    for norm in norms:
        norm.momentum = 1.0
        norm.register_forward_hook(
            lambda module, inputs, _: counts.update({module: inputs[0].numel() / inputs[0].shape[1]})
        )
    wanted = reference(x)
    for norm in norms:
        norm.running_var *= (counts[norm] - 1) / counts[norm]
    output = reference.eval()(x)
    assert torch.allclose(output, wanted, atol=1e-12)
    return output, reference.hidden


def _stability(net, member, x, targets, *, mode):
    """Of each layer, the cosine of two half batches' weight gradients, by autograd."""
    gradients = []
    for which, half in enumerate((slice(0, SAMPLES // 2), slice(SAMPLES // 2, SAMPLES // 2 * 2))):
        step = mode.dropout_step
        own = dataclasses.replace(mode, dropout_step=None if step is None else step - which * 2**32)
        everyone = net.parameters.n_members
        forward_pass = net.forward(x[half].expand(everyone, -1, *x.shape[1:]), targets[half].expand(everyone, -1), own)
        reference = Reference(net, member, forward_pass, train=mode.batch_statistics)
        reference_loss(net, reference(x[half]), targets[half]).backward()
        gradients.append([layer.weight.grad.numpy() for layer in reference.layers])
    return [_cos(*pair) for pair in zip(*gradients, strict=True)]


def _angle(a, b):
    """In degrees, of two arrays."""
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return math.degrees(2.0 * math.atan2(np.linalg.norm(u - v), np.linalg.norm(u + v)))


def _mean_angle(ours, theirs):
    return np.mean([_angle(a, b) for a, b in zip(ours, theirs, strict=True) if a.any() and b.any()])


def _cos(a, b):
    return float(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("mode", ["batch", "train", "eval"])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_measures_are_those_of_a_per_sample_oracle(network, mode):
    rule = "dfa" if network.get("kind") == "cnn" or mode != "batch" else "fa"
    for name in {"dfa", rule}:
        net, probe, members, x, targets = _probe(name, network, mode=mode)
        columns, output_cosine, update_angle = probe.measure(5)
        assert output_cosine == pytest.approx(1.0, abs=1e-12)
        own_rule = rule_class(name)(net, members)
        for member in range(2):
            found = _oracle(net, own_rule, member, x, targets, mode=probe_mode(mode, step=5))
            own, bp = (np.concatenate([layer.pop(name) for layer in found]) for name in ("own_scaled", "bp_gradient"))
            assert update_angle[member] == pytest.approx(_angle(own, bp), rel=1e-7)
            for layer, wanted in enumerate(found):
                for column, value in wanted.items():
                    assert columns[column][member, layer] == pytest.approx(value, rel=1e-7, abs=1e-9, nan_ok=True), (
                        column
                    )


def test_dead_units_are_counted_and_never_scored():
    net, probe, _, x, _ = _probe("dfa", NETWORKS["relu-narrow"], count=1)
    net.parameters.views[2, "bias"][:] = -100.0  # layer 2 is dead: no BP signal below it
    columns, *_ = probe.measure(0)
    assert columns["undefined"].tolist() == [[SAMPLES, 0]]
    for column in ("signal_cosine", "signal_angle_deg", "signal_gain", "projection", "ceiling_cosine", "chance_z"):
        assert math.isnan(columns[column][0, 0]), column
    assert not math.isnan(columns["signal_cosine"][0, 1])


def test_shallow_has_no_angle():
    _, probe, *_ = _probe("shallow")
    columns, output_cosine, _ = probe.measure(0)
    assert (columns["undefined"] == SAMPLES).all() and np.isnan(columns["signal_cosine"]).all()
    assert output_cosine == pytest.approx(1.0)


def test_angles_ignore_the_feedback_s_scale():
    def measured(scale):
        settings = members_of(1, network=NETWORKS["tanh"], probe={"samples": SAMPLES})[0].settings
        feedback = settings.feedback.model_copy(update={"scale": scale})
        member = Member(settings.model_copy(update={"feedback": feedback}), 0)
        net, x, targets = cohort_of([member], shape=(4,), samples=SAMPLES)
        return Probe(net, rule_class("dfa")(net, [member]), [member], x[0], targets[0]).measure(0)[0]

    plain, scaled = measured(1.0), measured(1e-20)
    for column in (
        "signal_cosine",
        "signal_angle_deg",
        "delta_cosine",
        "gradient_cosine",
        "weight_cosine",
        "jacobian_cosine",
        "ceiling_cosine",
        "chance_z",
        "common_mode",
        "gate",
    ):
        assert np.allclose(plain[column], scaled[column], rtol=1e-9), column
    assert np.allclose(plain["signal_gain"] * 1e-20, scaled["signal_gain"])


def test_a_bp_run_s_bystander_is_measured_as_dfa_would_be():
    _, bystander, *_ = _probe("bp")
    _, dfa, *_ = _probe("dfa")
    for column, values in dfa.measure(0)[0].items():
        assert np.array_equal(bystander.measure(0)[0][column], values), column


@pytest.mark.parametrize("rule", ["dfa", "fa"])
def test_the_closed_form_of_chance_agrees_with_redraws(rule):
    network = {"width": 60, "depth": 2}
    closed = _probe(rule, network, count=2)[1].measure(0)[0]
    drawn = _probe(rule, network, count=2, chance="redraw", redraws=800, measures=("chance",))[1].measure(0)[0]
    assert np.allclose(closed["chance_z"], drawn["chance_z"], atol=0.25, rtol=0.1)
    assert np.allclose(closed["chance_p"], drawn["chance_p"], atol=0.06)


def test_redraws_serve_other_laws_and_convolutions():
    settings = {"law": "orthogonal"}
    members = members_of(
        1,
        network=NETWORKS["cnn"],
        feedback=settings,
        probe={"samples": SAMPLES, "measures": ("chance",), "redraws": 40},
    )
    net, x, targets = cohort_of(members, shape=(2, 8, 8), samples=SAMPLES)
    columns = Probe(net, rule_class("fa")(net, members), members, x[0], targets[0]).measure(0)[0]
    assert np.isfinite(columns["chance_z"]).all() and ((columns["chance_p"] > 0) & (columns["chance_p"] <= 1)).all()


def test_chance_is_calibrated_under_its_own_null():
    # feedback independent of the network: z over many draws is standard normal
    members = members_of(1, network={"width": 50, "depth": 1})
    net, x, targets = cohort_of(members, shape=(4,), samples=30)
    forward_pass = net.forward(x, targets, probe_mode("batch", step=0))
    g = net.backward(forward_pass, BP(net, members))[0][0]
    settings: Settings = members[0].settings
    z = []
    for seed in range(400):
        matrix = torch.from_numpy(dfa_matrix(settings.feedback, outputs=4, sizes=(50,), layer=1, seed=seed))
        t = forward_pass.error @ matrix
        z.append(
            (
                angles.cosine(t, g).mean(1)
                / angles.chance_sd(angles.Directions(forward_pass.error), angles.Directions(g))
            ).item()
        )
    assert abs(np.mean(z)) < 4 / 400**0.5 and np.std(z) == pytest.approx(1.0, abs=0.15)


def test_step_measures_are_the_last_update_s():
    members = members_of(2, network={"width": 6})
    net, x, targets = cohort_of(members, shape=(5,))
    bp, gradients = BP(net, members), net.parameters.like()
    net.write_gradients(net.forward(x, targets, training_mode(1)), bp, gradients)
    before = net.parameters.copy()
    SGD(net.parameters, rates=(per_member([0.1, 0.2], x), per_member([0.1, 0.2], x)), momentum=0.0).step(gradients)
    measured = Probe(net, bp, members, x[0], targets[0]).measure_step(before, gradients)
    assert measured["step_cosine"] == pytest.approx(1.0, abs=1e-12)
    # exact where arccos of the cosine knows nothing: the update is the gradient but for rounding
    assert (measured["step_angle_deg"] < 1e-10).all()
    for member, rate in enumerate((0.1, 0.2)):
        for layer in (1, 2, 3):
            moved = (
                rate * gradients.views[layer, "weight"][member].norm() / before.views[layer, "weight"][member].norm()
            )
            assert measured["update_ratio"][member, layer - 1] == pytest.approx(moved.item(), rel=1e-9)


def _centred(signal):
    """Less its mean over the samples; zero where that is all there was."""
    rest = signal - signal.mean(0)
    return np.where(np.abs(rest).max(1, keepdims=True) > 1e-14 * np.abs(signal).max(), rest, 0.0)


@pytest.mark.parametrize("width", [6, 200])
def test_the_step_s_angle_is_that_of_the_displacement(width):
    """Of float32 weights, of which few and of which many pieces are taken, near the gradient and far from it."""
    members = members_of(3, network={"width": width, "depth": 2}, dtype="float32")
    net, x, targets = cohort_of(members, shape=(5,))
    gradients, before = net.parameters.like(), net.parameters.copy()
    generator = torch.Generator().manual_seed(1)
    for layer in (1, 2):
        gradient = gradients.views[layer, "weight"]
        gradient.copy_(torch.randn(gradient.shape, generator=generator))
        for member, noise in enumerate((0.0, 0.05, 2.0)):
            step = gradient[member] + noise * torch.randn(gradient[member].shape, generator=generator)
            net.weight(layer)[member] -= 0.1 * (1 - 2 * (member == 1)) * step  # one goes uphill
    measured = Probe(net, BP(net, members), members, x[0], targets[0]).measure_step(before, gradients)
    for layer, member in itertools.product((1, 2), range(3)):
        moved = net.weight(layer)[member].double() - before.views[layer, "weight"][member].double()
        wanted = _angle(moved.numpy(), -gradients.views[layer, "weight"][member].double().numpy())
        assert measured["step_angle_deg"][member, layer - 1] == pytest.approx(wanted, rel=1e-9)
    assert (measured["step_angle_deg"][0] < 0.01).all() and (measured["step_angle_deg"][1] > 170).all()


def test_samples_that_are_alike_have_no_centred_angle():
    net, probe, members, x, targets = _probe("dfa", NETWORKS["tanh"])
    alike = Probe(net, DFA(net, members), members, x[:1].expand_as(x), targets[:1].expand_as(targets)).measure(0)[0]
    assert np.isnan(alike["centred_angle_deg"]).all() and np.isfinite(alike["signal_angle_deg"]).all()
    assert np.isfinite(probe.measure(0)[0]["centred_angle_deg"]).all()


def test_halves_that_are_the_same_batch_agree_and_an_odd_sample_is_left_out():
    for extra in (0, 1):
        members = members_of(2, network={"width": 8, "norm": "batch"}, probe={"samples": SAMPLES})
        net, x, targets = cohort_of(members, shape=(5,), samples=SAMPLES + extra)
        half = SAMPLES // 2
        x[:, half : 2 * half], targets[:, half : 2 * half] = x[:, :half], targets[:, :half]
        found = Probe(net, DFA(net, members), members, x[0], targets[0]).measure(0)[0]
        assert found["gradient_stability"] == pytest.approx(1.0, abs=1e-12)


def test_modes_of_one_probe_are_those_of_probes_of_one_mode():
    network = {**NETWORKS["batch-dropout"], "input_dropout": 0.2}
    both = _probe("dfa", network, modes=("train", "batch", "eval"), mode="train")[1]
    for mode in ("train", "batch", "eval"):
        alone, ours = _probe("dfa", network, mode=mode)[1].measure(3), both.measure(3, mode)
        for column, values in alone.measures.items():
            assert np.array_equal(values, ours.measures[column], equal_nan=True), (mode, column)
        assert np.array_equal(alone.update_angle_deg, ours.update_angle_deg)
    assert np.array_equal(both.measure(3).update_angle_deg, both.measure(3, "train").update_angle_deg)


def test_measuring_changes_nothing():
    net, probe, *_ = _probe("dfa", NETWORKS["batch-dropout"], mode="train")
    before = (
        net.parameters.storage.clone(),
        [stage.running_mean.clone() for stage in net.stages[0] if hasattr(stage, "running_mean")],
    )
    first = probe.measure(3)[0]
    assert torch.equal(before[0], net.parameters.storage)
    assert all(
        torch.equal(a, s.running_mean)
        for a, s in zip(before[1], [s for s in net.stages[0] if hasattr(s, "running_mean")], strict=True)
    )
    again = probe.measure(3)[0]
    assert all(np.array_equal(first[column], again[column], equal_nan=True) for column in first)


def test_fewer_measures_leave_columns_out_and_change_no_other():
    full = _probe("dfa")[1].measure(0)[0]
    assert set(MEASURE_COLUMNS) - set(full) == {"step_cosine", "step_angle_deg", "update_ratio"}
    few = _probe("dfa", measures="angles")[1].measure(0)[0]
    assert set(few) == {
        "signal_cosine",
        "signal_cosine_sd",
        "signal_angle_deg",
        "centred_angle_deg",
        "undefined",
        "delta_cosine",
        "delta_angle_deg",
        "gradient_cosine",
        "gradient_angle_deg",
    }
    assert all(np.array_equal(few[column], full[column]) for column in few)


def test_schedules_hold_the_start_the_end_and_what_is_asked():
    options = ProbeOptions(log_steps=0, every_epochs=2, steps=(3, 999))
    assert schedule(options, steps_per_epoch=10, epochs=5) == [0, 3, 20, 40, 50]
    assert schedule(ProbeOptions(log_steps=0, every_epochs=0), steps_per_epoch=10, epochs=5) == [0, 50]


@pytest.mark.parametrize("mode", ["batch", "train"])
def test_the_first_layer_s_gradient_cosine_from_samples_is_that_of_the_gradients(mode):
    settings = dict(probe={"samples": SAMPLES, "mode": mode, "measures": ["gradient"]}, dtype="float32")
    members = members_of(3, network={"widths": [5, 4], "input_dropout": 0.3}, **settings)
    net, x, targets = cohort_of(members, shape=(2, 8, 8), samples=SAMPLES)
    rule = rule_class("dfa")(net, members)
    measured, *_ = Probe(net, rule, members, x[0], targets[0]).measure(0)
    forward_pass = net.forward(x[:1].expand_as(x), targets[:1].expand_as(targets), probe_mode(mode, step=0))
    deltas = [net.backward(forward_pass, teacher)[1] for teacher in (rule, BP(net, members))]
    for layer in (1, 2):
        h, pair = forward_pass.inputs[layer - 1], [own[layer - 1] for own in deltas]
        wanted = angles.frobenius_cosine(*(delta.double().mT @ h.double() for delta in pair))
        allowed = cosine_rounding(h, *pair).numpy()
        assert (np.abs(measured["gradient_cosine"][:, layer - 1] - wanted.numpy()) <= allowed).all()


def test_two_passes_in_different_modes_show_in_every_angle_and_in_the_output_s():
    """A published defect, asked for by name: with dropout, even back-propagation is not at one with itself."""

    def measured(**probe):
        members = members_of(2, network={"width": 20, "dropout": 0.4}, probe={"samples": 16, **probe})
        net, x, targets = cohort_of(members, shape=(5,), samples=16)
        rule = DFA(net, members)
        rule.matrices[-1] = net.weight(len(net.layers)).clone()  # at the top the two signals are the same
        return Probe(net, rule, members, x[0], targets[0]).measure(0)

    for mode in ("batch", "eval", "train"):
        measures, output, _ = measured(mode=mode)
        same, *_ = measured(mode=mode, reference_mode=mode)
        assert measures["signal_cosine"][:, -1] == pytest.approx(1.0) and output == pytest.approx(1.0)
        assert all(np.array_equal(measures[name], same[name], equal_nan=True) for name in measures)
    measures, output, _ = measured(mode="eval", reference_mode="train")
    assert (measures["signal_cosine"][:, -1] < 0.999).all() and (output < 0.99).all()


def test_layers_without_feedback_have_no_ceiling_and_no_chance_level():
    members = members_of(2, network={"width": 20}, probe={"samples": 16}, feedback={"points": [2, 3]})
    net, x, targets = cohort_of(members, shape=(5,), samples=16)
    measures, *_ = Probe(net, DFA(net, members), members, x[0], targets[0]).measure(0)
    for name in ("ceiling_cosine", "chance_z", "chance_p", "weight_cosine", "jacobian_cosine"):
        assert np.isnan(measures[name][:, 0]).all() and np.isfinite(measures[name][:, 1:]).all(), name
    assert np.isfinite(measures["signal_cosine"]).all()


def test_the_ceiling_of_limited_feedback_falls_with_its_rank():
    found = []
    for rank in (1, 3, None):
        members = members_of(2, dtype="float32", network={"width": 20}, probe={"samples": 16}, feedback={"rank": rank})
        net, x, targets = cohort_of(members, shape=(5,), samples=16, outputs=6)
        measures, *_ = Probe(net, DFA(net, members), members, x[0], targets[0]).measure(0)
        assert (measures["ceiling_cosine"] >= np.abs(measures["signal_cosine"]) - 1e-9).all()
        found.append(measures["ceiling_cosine"].mean())
    # of a random direction in 20 dimensions: sqrt(rank / 20)
    assert found == sorted(found) and found[0] == pytest.approx((1 / 20) ** 0.5, abs=0.1)
