"""What rules are when their feedback is special, and what a rule of the user's own needs."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine import cohort_of, hidden_and_output, members_of

from alignkit.errors import StudyError
from alignkit.execution.run_study import open_study
from alignkit.networks.parameters import per_member
from alignkit.networks.stages import training_mode
from alignkit.rules import rule_class
from alignkit.rules.bp import BP
from alignkit.rules.dfa import DFA
from alignkit.rules.fa import FA
from alignkit.rules.feedback import dfa_matrix, fa_matrix
from alignkit.rules.imposed_angle import ImposedAngle, skew_orthogonal
from alignkit.rules.shallow import Shallow
from alignkit.settings.feedback import Feedback
from alignkit.settings.rules import RULES, rule_identity
from alignkit.study.plan import expand
from alignkit.study.study import Study
from alignkit.training.optimisers import SGD

STEPS = 20
BUILT_IN = [rule_class(name) for name in RULES]


def _train(rule_of, before_step, **network):
    """Parameters after 20 steps under a rule whose feedback `before_step` may reset."""
    members = members_of(2, network={"width": 6, "depth": 3, **network})
    net, x, targets = cohort_of(members, shape=(5,), samples=16)
    rule = rule_of(net, members)
    optimiser = SGD(net.parameters, rates=(per_member([0.01] * 2, x), per_member([0.02] * 2, x)), momentum=0.0)
    gradients = net.parameters.like()
    for step in range(1, STEPS + 1):
        before_step(net, rule)
        net.write_gradients(net.forward(x, targets, training_mode(step)), rule, gradients)
        optimiser.step(gradients)
    return net.parameters.storage


def _transported(net, rule):
    """B_l := W_L … W_{l+1}, what DFA's feedback stands for in a linear network."""
    product = net.weight(len(net.layers))
    for layer in range(len(rule.matrices), 0, -1):
        rule.matrices[layer - 1] = product.clone()
        product = torch.bmm(product, net.weight(layer))


def _weights(net, rule):
    rule.matrices = [net.weight(layer + 1).clone() for layer in range(1, len(net.layers))]


def test_dfa_with_transported_weights_of_a_linear_network_is_bp():
    bp = _train(BP, lambda net, rule: None, activation="linear")
    dfa = _train(DFA, _transported, activation="linear")
    assert torch.allclose(bp, dfa, rtol=0, atol=1e-12)
    assert not torch.allclose(bp, _train(DFA, lambda net, rule: None, activation="linear"), atol=1e-3)


@pytest.mark.parametrize("network", [{"activation": "tanh"}, {"activation": "relu", "norm": "batch", "dropout": 0.2}])
def test_fa_with_the_weights_is_bp(network):
    bp = _train(BP, lambda net, rule: None, **network)
    fa = _train(FA, _weights, **network)
    assert torch.equal(bp, fa)


def test_fa_with_the_kernels_is_bp_for_convolutions():
    network = {"kind": "cnn", "channels": [3, 2], "kernel": 3, "padding": 1, "pool": 2, "hidden": [5]}
    members = members_of(2, network=network)
    net, x, targets = cohort_of(members, shape=(2, 8, 8))
    forward_pass = net.forward(x, targets, training_mode(1))
    fa = FA(net, members)
    _weights(net, fa)
    for ours, theirs in zip(
        net.backward(forward_pass, fa)[0], net.backward(forward_pass, BP(net, members))[0], strict=True
    ):
        assert torch.equal(ours, theirs)


def test_every_rule_has_the_output_layer_s_true_gradient():
    members = members_of(2, network={"width": 6, "norm": "layer"})
    net, x, targets = cohort_of(members, shape=(5,))
    forward_pass = net.forward(x, targets, training_mode(1))
    found = []
    for name in RULES:
        gradients = net.parameters.like()
        net.write_gradients(forward_pass, rule_class(name)(net, members), gradients)
        found.append(gradients.views[len(net.layers), "weight"].clone())
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_shallow_moves_the_output_layer_alone():
    members = members_of(2, network={"width": 6, "norm": "batch"})
    net, x, targets = cohort_of(members, shape=(5,))
    gradients = net.parameters.like()
    net.write_gradients(net.forward(x, targets, training_mode(1)), Shallow(net, members), gradients)
    hidden, output = hidden_and_output(gradients)
    assert (hidden == 0).all() and (output != 0).any()


def test_bp_carries_the_feedback_that_its_dfa_twin_learns_from():
    members = members_of(3, network={"width": 6})
    net, _, _ = cohort_of(members, shape=(5,))
    for bystander, twin in zip(BP(net, members).measured.matrices, DFA(net, members).matrices, strict=True):
        assert torch.equal(bystander, twin)


def test_dfa_does_not_depend_on_the_signal_above():
    members = members_of(1, network={"width": 6})
    net, x, targets = cohort_of(members, shape=(5,))
    forward_pass = net.forward(x, targets, training_mode(1))
    rule = DFA(net, members)
    assert torch.equal(
        rule.teaching_signal(1, forward_pass, forward_pass.error), rule.teaching_signal(1, forward_pass, None)
    )


@pytest.mark.parametrize("law", ["gaussian", "uniform", "orthogonal"])
@pytest.mark.parametrize("sharing", ["per_layer", "sliced"])
def test_normalised_feedback_keeps_a_c_th_of_the_error_s_length(law, sharing):
    feedback = Feedback(law=law, sharing=sharing)
    error = np.random.default_rng(0).standard_normal((200, 10))
    for layer in (1, 2):
        matrix = dfa_matrix(feedback, outputs=10, sizes=(400, 300), layer=layer, seed=0)
        ratio = ((error @ matrix) ** 2).sum() / (error**2).sum()
        assert ratio == pytest.approx(1 / 10, rel=0.08)


CONVOLUTIONS = {"kind": "cnn", "channels": [4, 2], "kernel": 3, "padding": 1, "pool": 2, "hidden": [6]}
TURNED = {
    "mlp": ({"width": 6, "depth": 3}, (5,)),
    "batch norm and dropout": ({"widths": [6, 8], "activation": "relu", "norm": "batch", "dropout": 0.3}, (5,)),
    "layer norm": ({"widths": [6, 8], "norm": "layer"}, (5,)),
    "convolutions": (CONVOLUTIONS, (2, 8, 8)),
}


def _turned(network, shape, angle_deg, *, members=2):
    """The deltas and gradients of a cohort under BP and under the imposed angle."""
    cohort = members_of(members, network=network, feedback={"angle_deg": angle_deg})
    net, x, targets = cohort_of(cohort, shape=shape, samples=7)
    forward_pass = net.forward(x, targets, training_mode(1))
    found = []
    for rule in (BP(net, cohort), ImposedAngle(net, cohort)):
        gradients = net.parameters.like()
        net.write_gradients(forward_pass, rule, gradients)
        found.append((*net.backward(forward_pass, rule), gradients))
    return net, *found


@pytest.mark.parametrize("size", [2, 6, 64])
def test_the_quarter_turn_is_orthogonal_and_skew(size):
    turn = skew_orthogonal(size, seed=3, layer=1)
    assert np.array_equal(turn.T, -turn)
    assert np.allclose(turn @ turn, -np.eye(size), atol=1e-13)
    assert not np.allclose(turn, skew_orthogonal(size, seed=4, layer=1))
    assert not np.allclose(turn, skew_orthogonal(size, seed=3, layer=2))


def test_the_quarter_turn_prefers_no_direction():
    """Over draws, J's entries off the diagonal have mean 0 and variance 1/(d - 1), whatever the axes."""
    turns = np.stack([skew_orthogonal(4, seed=seed) for seed in range(2000)])
    upper = turns[:, *np.triu_indices(4, 1)]
    assert np.abs(upper.mean(0)).max() < 4 / np.sqrt(3 * 2000)
    assert (upper**2).mean(0) == pytest.approx(np.full(6, 1 / 3), abs=0.03)


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 60.0, 90.0, 135.0, 180.0])
@pytest.mark.parametrize("network,shape", TURNED.values(), ids=TURNED)
def test_the_imposed_angle_is_that_of_every_sample_and_gradient_at_the_same_length(network, shape, angle_deg):
    net, (g, delta, bp), (t, turned, own) = _turned(network, shape, angle_deg)
    cosine = np.cos(np.radians(angle_deg))
    for layer in range(1, len(net.layers)):
        assert torch.equal(t[layer - 1], g[layer - 1])  # below an imposed angle, too, the walk carries the true delta
        pairs = [(delta[layer - 1].flatten(2), turned[layer - 1].flatten(2))]  # [E, N, …]: every sample of its own
        for name in ("weight", "bias"):
            pairs.append(tuple(gradients.views[layer, name].flatten(1) for gradients in (bp, own)))
        for before, after in pairs:
            lengths = before.norm(dim=-1)
            assert torch.allclose(after.norm(dim=-1), lengths, rtol=1e-12, atol=1e-15)
            assert torch.allclose((before * after).sum(-1), cosine * lengths**2, rtol=1e-11, atol=1e-13)
        for name in {"gain", "shift"} & set(bp.of_layer(layer)):
            assert torch.equal(own.views[layer, name], bp.views[layer, name])


@pytest.mark.parametrize("network,shape", TURNED.values(), ids=TURNED)
def test_the_turn_of_a_delta_is_that_of_its_channels_one_position_at_a_time(network, shape):
    net, (_, delta, _), (_, turned, _) = _turned(network, shape, 70.0)
    angle = np.radians(70.0)
    for layer, (before, after) in enumerate(zip(delta, turned, strict=True), start=1):
        for member in range(2):
            turn = torch.from_numpy(skew_orthogonal(before.shape[2], seed=member, layer=layer))
            rotation = np.cos(angle) * torch.eye(len(turn), dtype=turn.dtype) + np.sin(angle) * turn
            wanted = torch.einsum("nc...,cd->nd...", before[member], rotation)
            assert torch.allclose(after[member], wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("network", [{}, {"activation": "relu", "norm": "batch", "dropout": 0.2}])
def test_an_imposed_angle_of_zero_is_bp_to_the_bit(network):
    assert torch.equal(
        _train(BP, lambda net, rule: None, **network), _train(ImposedAngle, lambda net, rule: None, **network)
    )


def test_at_180_degrees_the_hidden_layers_climb_the_loss():
    _, (_, _, bp), (_, _, own) = _turned({"width": 6, "depth": 3}, (5,), 180.0)
    (hidden, output), (turned, same) = hidden_and_output(bp), hidden_and_output(own)
    assert torch.allclose(turned, -hidden, rtol=1e-12, atol=1e-15) and torch.equal(same, output)


def test_the_probe_records_the_imposed_angle(tmp_path):
    import alignkit

    (tmp_path / "turned.toml").write_text(
        'name = "turned"\nrules = ["bp", "imposed_angle"]\nseeds = 2\n[network]\nwidth = 16\ndepth = 2\n'
        '[training]\nepochs = 2\ndtype = "float64"\n[probe]\nsamples = 64\n'
        "[designs.dose.factors]\nfeedback.angle_deg = [0, 60]\n"
    )
    records = alignkit.run_study(tmp_path / "turned.toml", tmp_path / "out", workers=1)
    # BP has no angle to vary
    assert records.runs["rule"].value_counts().to_dict() == {"bp": 2, "imposed_angle": 4}
    layers = records.layers.merge(records.runs[["run_id", "rule", "feedback_angle_deg"]], on="run_id")
    for degrees, rows in layers[layers["rule"] == "imposed_angle"].groupby("feedback_angle_deg"):
        cosine = np.cos(np.radians(degrees))
        for column in ("delta_cosine", "gradient_cosine"):
            assert rows[column].to_numpy() == pytest.approx(np.full(len(rows), cosine), abs=1e-10)
        after = rows[rows["step"] > 0]  # plain SGD: the step has the angle as well
        assert after["step_cosine"].to_numpy() == pytest.approx(np.full(len(after), cosine), abs=1e-10)
        assert (rows["signal_cosine"] > 1 - 1e-12).all() and rows["chance_z"].isna().all()


def test_an_angle_cannot_be_imposed_on_an_odd_number_of_units():
    members = members_of(1, network={"widths": [6, 7]})
    with pytest.raises(StudyError, match=r"imposed_angle: expected an even number of units .* linear2 has 7"):
        ImposedAngle(cohort_of(members, shape=(5,))[0], members)


def test_an_angle_enters_the_run_s_id_only_where_it_is_not_zero_and_never_that_of_bp():
    def runs(**options):
        study = Study.parse({"name": "t", "seeds": 1, "rules": ["bp", "dfa", "imposed_angle"], **options})
        return {run.rule: run.run_id for run in expand(study, fingerprint=lambda section: "x").runs}

    turned = runs(feedback={"angle_deg": 60})
    assert runs() == runs(feedback={"angle_deg": 0.0})
    assert turned["imposed_angle"] == runs(feedback={"angle_deg": 60.0})["imposed_angle"] != runs()["imposed_angle"]
    both = Study.parse({"name": "t", "designs": {"d": {"factors": {"feedback.angle_deg": [0, 60]}}}})
    bp = [run for run in expand(both, fingerprint=lambda section: "x").runs if run.rule == "bp"]
    assert len(bp) == both.seeds and all(run.levels == {"feedback_angle_deg": None} for run in bp)


@pytest.mark.parametrize("angle", [-1.0, 180.5, float("nan"), "60", True])
def test_an_angle_is_a_number_from_0_to_180(angle):
    with pytest.raises(StudyError, match=r"feedback\.angle_deg"):
        Study.parse({"name": "t", "feedback": {"angle_deg": angle}})


def test_the_shipped_dose_response_turns_every_arm_by_its_angle_at_the_progress_it_says():
    study = open_study("dose_response").study
    runs = [run for run in expand(study, fingerprint=lambda section: "x").runs if run.rule == "imposed_angle"]
    base = study.training.lr
    for run in runs:
        degrees, lr = run.settings.feedback.angle_deg, run.settings.training.lr
        assert run.settings.training.output_lr == base  # the output layer is no part of the dose
        if "fixed_rate" in run.designs:
            assert lr == base
        if "fixed_progress" in run.designs:
            assert lr * np.cos(np.radians(degrees)) == pytest.approx(base, rel=1e-3)


def test_scales_and_normalisation_start_from_the_same_gaussian():
    base = dfa_matrix(Feedback(), outputs=4, sizes=(9,), layer=1, seed=3)
    assert np.allclose(dfa_matrix(Feedback(scale=2.5), outputs=4, sizes=(9,), layer=1, seed=3), 2.5 * base)
    assert np.allclose(dfa_matrix(Feedback(normalised=False), outputs=4, sizes=(9,), layer=1, seed=3), base * 6)


def test_sliced_feedback_is_the_first_columns_of_one_matrix():
    feedback = Feedback(sharing="sliced", normalised=False)
    narrow, wide = (dfa_matrix(feedback, outputs=4, sizes=(5, 8), layer=layer, seed=3) for layer in (1, 2))
    assert np.array_equal(narrow, wide[:, :5])


@pytest.mark.parametrize("outputs,size", [(4, 9), (9, 4)])
@pytest.mark.parametrize("sharing", ["per_layer", "sliced"])
def test_orthogonal_feedback_is_orthogonal_with_the_entry_variance_of_the_others(outputs, size, sharing):
    matrix = dfa_matrix(
        Feedback(law="orthogonal", normalised=False, sharing=sharing),
        outputs=outputs,
        sizes=(size, 12),
        layer=1,
        seed=0,
    )
    gram = matrix @ matrix.T if outputs < size else matrix.T @ matrix
    assert np.allclose(gram, np.eye(min(outputs, size)) * max(outputs, size))
    assert (matrix**2).mean() == pytest.approx(1.0)


def test_normalised_fa_keeps_expected_lengths():
    matrix = fa_matrix(Feedback(), shape=(300, 400), layer=2, seed=0)
    delta = np.random.default_rng(0).standard_normal((100, 300))
    assert ((delta @ matrix) ** 2).sum() / (delta**2).sum() == pytest.approx(1.0, rel=0.05)


def test_a_rule_of_the_user_s_own_is_named_by_its_module():
    assert rule_class("alignkit.rules.dfa:DFA") is DFA
    with pytest.raises(StudyError, match=r'"nowhere:Rule": cannot be imported'):
        rule_class("nowhere:Rule")
    with pytest.raises(StudyError, match=r"expected a subclass of alignkit\.rules\.base\.Rule"):
        rule_class("json:JSONDecoder")
    with pytest.raises(StudyError, match=r'no rule is called "dfaa"; did you mean "dfa"\?'):
        rule_class("dfaa")


OWN_RULE = """
from alignkit.numerics.products import matmul
from alignkit.rules.base import Rule
from alignkit.rules.dfa import DFA


class TargetProjection(Rule):
    def __init__(self, network, members):
        super().__init__(network, members)
        self.feedback = DFA(network, members)

    def teaching_signal(self, layer, forward_pass, delta_above):
        target = (forward_pass.error < 0).to(forward_pass.error.dtype)
        return -matmul(target, self.feedback.matrices[layer - 1])
"""


def test_a_fifth_rule_runs_through_a_whole_study(tmp_path, monkeypatch):
    import alignkit

    (tmp_path / "my_rules.py").write_text(OWN_RULE)
    (tmp_path / "own.toml").write_text(
        'name = "own"\nrules = ["bp", "my_rules:TargetProjection"]\nseeds = 2\n[network]\nwidth = 16\ndepth = 2\n'
        "[training]\nepochs = 4\n[probe]\nsamples = 64\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    records = alignkit.run_study(tmp_path / "own.toml", tmp_path / "out", workers=1)
    own = records.runs[records.runs["rule"] == "my_rules:TargetProjection"]
    assert (own["test_accuracy"] > 0.4).all() and own["bp_run_id"].isin(records.runs["run_id"]).all()
    layers = records.layers[records.layers["run_id"].isin(own["run_id"])]
    assert layers["signal_cosine"].notna().all() and layers["ceiling_cosine"].isna().all()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as workers:
        found = workers.submit(rule_identity, "my_rules:TargetProjection").result()
    assert found == rule_identity("my_rules:TargetProjection") != rule_identity("no_rules:TargetProjection")


BROKEN = {
    "shape": (
        "return forward_pass.error",
        r"teaching_signal: expected \[E, N, d_l\] = \[1, 32, 8\] at hidden layer 1, .*; got \[1, 32, 10\]",
    ),
    "mistake": (
        "return forward_pass.eror",
        r'rule "broken_rules_mistake:Own": AttributeError: .*eror.*broken_rules_mistake\.py:4',
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_mistakes_in_a_rule_of_the_user_s_own_are_one_sentence(tmp_path, monkeypatch, kind):
    import alignkit

    body, message = BROKEN[kind]
    (tmp_path / f"broken_rules_{kind}.py").write_text(
        f"from alignkit.rules.base import Rule\nclass Own(Rule):\n    def teaching_signal(self, layer, forward_pass, delta_above):\n        {body}\n"
    )
    (tmp_path / "own.toml").write_text(
        f'name = "own"\nrules = ["broken_rules_{kind}:Own"]\nseeds = 1\n[network]\nwidth = 8\ndepth = 1\n[training]\nepochs = 1\n[probe]\nsamples = 32\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StudyError, match=message):
        alignkit.run_study(tmp_path / "own.toml", tmp_path / "out", workers=1)


@pytest.mark.parametrize("rule_of", [DFA, FA])
def test_without_a_feedback_point_a_layer_learns_what_the_layer_above_hands_down(rule_of):
    members = members_of(2, network={"width": 6, "depth": 3}, feedback={"points": [2]})
    net, x, targets = cohort_of(members, shape=(5,))
    forward_pass = net.forward(x, targets, training_mode(1))
    rule = rule_of(net, members)
    signals, deltas = net.backward(forward_pass, rule)
    assert torch.equal(signals[2], net.transport(4, forward_pass.error))
    assert torch.equal(signals[1], rule.teaching_signal(2, forward_pass, deltas[2]))
    assert torch.equal(signals[0], net.transport(2, deltas[1]))


def test_a_rule_without_feedback_does_not_read_its_points():
    members = members_of(2, network={"width": 6, "depth": 3}, feedback={"points": [2]})
    net, x, targets = cohort_of(members, shape=(5,))
    forward_pass = net.forward(x, targets, training_mode(1))
    assert net.backward(forward_pass, Shallow(net, members))[0] == [None, None, None]


@pytest.mark.parametrize("sharing", ["per_layer", "sliced"])
def test_limited_feedback_has_its_rank_and_keeps_the_size_of_signals(sharing):
    def drawn(rank, seed=0):
        options = Feedback(sharing=sharing, rank=rank)
        return dfa_matrix(options, outputs=10, sizes=[300, 200], layer=2, seed=seed)

    for rank in (1, 4, 9):
        assert np.linalg.matrix_rank(drawn(rank)) == rank
    assert np.array_equal(drawn(10), drawn(None))
    sizes = [np.square(drawn(3, seed)).sum() for seed in range(40)]
    assert np.mean(sizes) == pytest.approx(1.0, abs=0.03)  # E|B|^2 = C d / (C d)
    both = np.vstack([drawn(2), drawn(5)])
    assert np.linalg.matrix_rank(drawn(2).T @ drawn(5)) == 2 and np.linalg.matrix_rank(both) <= 7


def test_limited_feedback_alignment_too():
    matrix = fa_matrix(Feedback(rank=2), shape=(8, 30), layer=2, seed=0)
    assert np.linalg.matrix_rank(matrix) == 2


@pytest.mark.parametrize("rule_of", BUILT_IN)
def test_what_says_that_it_is_linear_in_the_error_is(rule_of):
    members = members_of(2, network={"width": 6, "depth": 3, "norm": "batch"}, feedback={"angle_deg": 30.0})
    net, x, targets = cohort_of(members, shape=(5,))
    forward_pass = net.forward(x, targets, training_mode(1))
    rule = rule_of(net, members)
    assert rule.linear_in_error
    other = torch.randn(forward_pass.error.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mixed = replace(forward_pass, error=3.0 * forward_pass.error - 2.0 * other)
    walks = (net.backward(each, rule)[1] for each in (forward_pass, replace(forward_pass, error=other), mixed))
    for of_error, of_other, found in zip(*walks, strict=True):
        if rule_of is Shallow:
            assert found is None
        else:
            assert torch.allclose(found, 3.0 * of_error - 2.0 * of_other, rtol=1e-10, atol=1e-12)


class SignOfError(DFA):
    """Not linear in the error, though it inherits from a rule that is."""

    def teaching_signal(self, layer, forward_pass, delta_above):
        return forward_pass.error.sign() @ self.matrices[layer - 1]


@pytest.mark.parametrize("output_layers", [1, 2])
@pytest.mark.parametrize("rule_of", [*BUILT_IN, SignOfError])
def test_a_step_is_the_learning_rates_times_the_gradient_whether_linear_in_the_error_or_not(rule_of, output_layers):
    network, training = {"width": 6, "depth": 3, "norm": "layer"}, {"output_layers": output_layers}
    members = members_of(2, network=network, training=training)
    (net, x, targets), (other, _, _) = (cohort_of(members, shape=(5,)) for _ in range(2))
    rates = per_member([0.1, 0.2], x), per_member([0.3, 0.0], x)
    net.descend(net.forward(x, targets, training_mode(1)), rule_of(net, members), rates)
    gradients = other.parameters.like()
    other.write_gradients(other.forward(x, targets, training_mode(1)), rule_of(other, members), gradients)
    SGD(other.parameters, rates=rates, momentum=0.0).step(gradients)
    assert not SignOfError.linear_in_error
    assert torch.allclose(net.parameters.storage, other.parameters.storage, rtol=1e-12, atol=1e-12)


STAGES = {
    "tanh": {},
    "relu": {"activation": "relu", "dropout": 0.3, "norm": "batch"},
    "leaky": {
        "activation": "leaky_relu",
        "order": ["activation", "dropout", "norm", "pool"],
        "norm": "layer",
        "dropout": 0.3,
    },
    "linear": {"activation": "linear"},
    "masked": {"signal_masked": 0.5, "frozen": 0.2},
    "convolutions": {"kind": "cnn", "channels": [4, 2], "kernel": 3, "padding": 1, "pool": 2, "hidden": [8]},
}


def deltas_of(net, forward_pass, rule, **options):
    return [below.pull_back() for below in net.backward_signals(forward_pass, rule, **options)]


@pytest.mark.parametrize("network", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("rule_of", [*BUILT_IN, SignOfError])
def test_signals_that_are_worked_in_leave_the_same_deltas(rule_of, network):
    widths = {} if "kind" in network else {"width": 32, "depth": 3}
    members = members_of(2, network={**widths, **network}, feedback={"angle_deg": 30.0}, dtype="float32")
    net, x, targets = cohort_of(members, shape=(2, 8, 8))
    forward_pass, rule = net.forward(x, targets, training_mode(1)), rule_of(net, members)
    kept = deltas_of(net, forward_pass, rule)
    error = forward_pass.error.clone()
    for wanted, found in zip(kept, deltas_of(net, forward_pass, rule, may_overwrite=True), strict=True):
        assert (found is None) == (wanted is None) and (found is None or torch.equal(found, wanted))
    assert torch.equal(forward_pass.error, error)
    again = deltas_of(net, forward_pass, rule)
    assert all(now is before or torch.equal(now, before) for now, before in zip(again, kept, strict=True))


@pytest.mark.parametrize("rule_of", BUILT_IN)
def test_what_says_that_it_makes_its_signals_keeps_none(rule_of):
    members = members_of(2, network={"width": 6, "depth": 3}, feedback={"angle_deg": 30.0})
    net, x, targets = cohort_of(members, shape=(5,))
    forward_pass, rule = net.forward(x, targets, training_mode(1)), rule_of(net, members)
    assert rule.makes_its_signals
    first, second = (net.backward(forward_pass, rule)[0] for _ in range(2))
    held = [forward_pass.error, forward_pass.output, *forward_pass.inputs, *forward_pass.hidden, net.parameters.storage]
    held += [getattr(rule, "matrices", [])[layer] for layer in range(len(getattr(rule, "matrices", [])))]
    memories = {tensor.untyped_storage().data_ptr() for tensor in held}
    for one, other in zip(first, second, strict=True):
        if rule_of is Shallow:
            assert one is other is None
        else:
            own = {signal.untyped_storage().data_ptr() for signal in (one, other)}
            assert len(own) == 2 and not own & memories


class KeepsItsSignals(DFA):
    """A rule of one's own may hand over what it goes on using."""

    def __init__(self, network, members):
        super().__init__(network, members)
        self.kept = {}

    def teaching_signal(self, layer, forward_pass, delta_above):
        return self.kept.setdefault(layer, super().teaching_signal(layer, forward_pass, delta_above))


def test_a_step_leaves_alone_the_signals_of_a_rule_that_may_keep_them():
    members = members_of(2, network={"width": 32, "depth": 2}, dtype="float32")
    net, x, targets = cohort_of(members, shape=(5,))
    forward_pass, rule = net.forward(x, targets, training_mode(1)), KeepsItsSignals(net, members)
    assert not rule.makes_its_signals
    before = [rule.teaching_signal(layer, forward_pass, None).clone() for layer in (1, 2)]
    net.descend(forward_pass, rule, (per_member([0.1, 0.1], x), per_member([0.1, 0.1], x)))
    assert all(torch.equal(rule.kept[layer], signal) for layer, signal in zip((1, 2), before, strict=True))
