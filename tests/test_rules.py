"""What rules are when their feedback is special, and what a rule of the user's own needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine import cohort_of, members_of

from alignkit.errors import StudyError
from alignkit.feedback import dfa_matrix, fa_matrix
from alignkit.parameters import SGD, per_member
from alignkit.rules import RULES, rule_class
from alignkit.rules.bp import BP
from alignkit.rules.dfa import DFA
from alignkit.rules.fa import FA
from alignkit.rules.shallow import Shallow
from alignkit.study import Feedback
from alignkit.tails import training_mode

STEPS = 20


def _train(rule_of, before_step, **network):
    """Parameters after 20 steps under a rule whose feedback `before_step` may reset."""
    members = members_of(2, network={"width": 6, "depth": 3, **network})
    net, x, targets = cohort_of(members, shape=(5,), samples=16)
    rule = rule_of(net, members)
    optimiser = SGD(net.parameters, rates=(per_member([0.01] * 2, x), per_member([0.02] * 2, x)), momentum=0.0)
    gradients = net.parameters.like()
    for step in range(1, STEPS + 1):
        before_step(net, rule)
        net.backward(net.forward(x, targets, training_mode(step)), rule, gradients)
        optimiser.step(gradients)
    return net.parameters.flat


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
    passed = net.forward(x, targets, training_mode(1))
    fa = FA(net, members)
    _weights(net, fa)
    for ours, theirs in zip(net.backward(passed, fa)[0], net.backward(passed, BP(net, members))[0], strict=True):
        assert torch.equal(ours, theirs)


def test_every_rule_has_the_output_layer_s_true_gradient():
    members = members_of(2, network={"width": 6, "norm": "layer"})
    net, x, targets = cohort_of(members, shape=(5,))
    passed = net.forward(x, targets, training_mode(1))
    found = []
    for name in RULES:
        gradients = net.parameters.like()
        net.backward(passed, rule_class(name)(net, members), gradients)
        found.append(gradients.views[len(net.layers), "weight"].clone())
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_shallow_moves_the_output_layer_alone():
    members = members_of(2, network={"width": 6, "norm": "batch"})
    net, x, targets = cohort_of(members, shape=(5,))
    gradients = net.parameters.like()
    net.backward(net.forward(x, targets, training_mode(1)), Shallow(net, members), gradients)
    hidden, output = gradients.groups
    assert (hidden == 0).all() and (output != 0).any()


def test_bp_carries_the_feedback_that_its_dfa_twin_learns_from():
    members = members_of(3, network={"width": 6})
    net, _, _ = cohort_of(members, shape=(5,))
    for bystander, twin in zip(BP(net, members).measured.matrices, DFA(net, members).matrices, strict=True):
        assert torch.equal(bystander, twin)


def test_dfa_does_not_depend_on_the_signal_above():
    members = members_of(1, network={"width": 6})
    net, x, targets = cohort_of(members, shape=(5,))
    passed = net.forward(x, targets, training_mode(1))
    rule = DFA(net, members)
    assert torch.equal(rule.teaching_signal(1, passed, passed.error), rule.teaching_signal(1, passed, None))


@pytest.mark.parametrize("law", ["gaussian", "uniform", "orthogonal"])
@pytest.mark.parametrize("sharing", ["per_layer", "sliced"])
def test_normalised_feedback_keeps_a_c_th_of_the_error_s_length(law, sharing):
    feedback = Feedback(law=law, sharing=sharing)
    error = np.random.default_rng(0).standard_normal((200, 10))
    for layer in (1, 2):
        matrix = dfa_matrix(feedback, outputs=10, sizes=(400, 300), layer=layer, seed=0)
        ratio = ((error @ matrix) ** 2).sum() / (error**2).sum()
        assert ratio == pytest.approx(1 / 10, rel=0.08)


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
from alignkit.batched import matmul
from alignkit.rules.base import Rule
from alignkit.rules.dfa import DFA


class TargetProjection(Rule):
    def __init__(self, network, members):
        super().__init__(network, members)
        self.feedback = DFA(network, members)

    def teaching_signal(self, layer, passed, delta_above):
        target = (passed.error < 0).to(passed.error.dtype)
        return -matmul(target, self.feedback.matrices[layer - 1])
"""


def test_a_fifth_rule_runs_through_a_whole_study(tmp_path, monkeypatch):
    import alignkit

    (tmp_path / "my_rules.py").write_text(OWN_RULE)
    (tmp_path / "own.toml").write_text(
        'name = "own"\nrules = ["bp", "my_rules:TargetProjection"]\nseeds = 2\n[network]\nwidth = 16\ndepth = 2\n'
        "[training]\nepochs = 4\n[probe]\nsamples = 64\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    records = alignkit.run_study(tmp_path / "own.toml", tmp_path / "out", workers=1)
    own = records.runs[records.runs["rule"] == "my_rules:TargetProjection"]
    assert (own["test_accuracy"] > 0.4).all() and own["bp_run_id"].isin(records.runs["run_id"]).all()
    layers = records.layers[records.layers["run_id"].isin(own["run_id"])]
    assert layers["signal_cosine"].notna().all() and layers["ceiling_cosine"].isna().all()


BROKEN = {
    "shape": (
        "return passed.error",
        r"teaching_signal: expected \[E, N, d_l\] = \[1, 32, 8\] at hidden layer 1; got \[1, 32, 10\]",
    ),
    "mistake": (
        "return passed.eror",
        r'rule "broken_rules_mistake:Own": AttributeError: .*eror.*broken_rules_mistake\.py:4',
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_mistakes_in_a_rule_of_the_user_s_own_are_one_sentence(tmp_path, monkeypatch, kind):
    import alignkit

    body, message = BROKEN[kind]
    (tmp_path / f"broken_rules_{kind}.py").write_text(
        f"from alignkit.rules.base import Rule\nclass Own(Rule):\n    def teaching_signal(self, layer, passed, delta_above):\n        {body}\n"
    )
    (tmp_path / "own.toml").write_text(
        f'name = "own"\nrules = ["broken_rules_{kind}:Own"]\nseeds = 1\n[network]\nwidth = 8\ndepth = 1\n[training]\nepochs = 1\n[probe]\nsamples = 32\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StudyError, match=message):
        alignkit.run_study(tmp_path / "own.toml", tmp_path / "out", workers=1)
