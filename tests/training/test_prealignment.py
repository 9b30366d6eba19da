"""Pre-aligned weights: what they send down is the teaching signal, as far as their rank allows."""

from __future__ import annotations

import pytest
import torch
from engine import cohort_of, members_of

from alignkit.data.dataset import Split
from alignkit.data.loading import fingerprint, load
from alignkit.errors import StudyError
from alignkit.execution.checks import plan_cohorts
from alignkit.networks.stages import Mode
from alignkit.rules.bp import BP
from alignkit.rules.dfa import DFA
from alignkit.study.plan import expand
from alignkit.study.study import Study
from alignkit.training.loop import train_cohort
from alignkit.training.prealignment import prealign


def _prealigned(rule_of=DFA, network=None, samples=64, batch=16, **sections):
    network = {"widths": [12, 9], "initialisation": "pre_aligned", **(network or {})}
    members = members_of(2, network=network, training={"batch_size": batch}, **sections)
    net, _, _ = cohort_of(members, shape=(5,))
    before = net.parameters.copy()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(samples, 5, generator=generator, dtype=torch.float64)
    split = Split(x, torch.randint(4, (samples,), generator=generator))
    rule = rule_of(net, members)
    prealign(net, rule.measured, members, split)
    return members, net, before, rule, split


def test_weights_have_unit_norm_and_the_rank_of_the_errors_and_the_first_layer_stays():
    _, net, before, _, _ = _prealigned()
    assert torch.equal(net.weight(1), before.views[1, "weight"])
    for layer in (1, 2, 3):
        assert torch.equal(net.parameters.views[layer, "bias"], before.views[layer, "bias"])
    for layer in (2, 3):
        assert torch.linalg.vector_norm(net.weight(layer).flatten(1), dim=1).tolist() == pytest.approx([1.0, 1.0])
        # softmax errors sum to zero: one less than the outputs
        assert torch.linalg.matrix_rank(net.weight(layer), rtol=1e-6).tolist() == [3, 3]


def test_below_the_output_back_propagation_then_sends_what_the_feedback_does():
    members, net, _, rule, split = _prealigned()
    forward_pass = net.forward(split.inputs.expand(2, -1, -1), split.targets.expand(2, -1), Mode(batch_statistics=True))
    t, g = net.backward(forward_pass, rule)[0][1], net.backward(forward_pass, BP(net, members))[0][1]
    assert torch.nn.functional.cosine_similarity(t, g, dim=-1).min().item() == pytest.approx(1.0, abs=1e-9)
    t, g = net.backward(forward_pass, rule)[0][0], net.backward(forward_pass, BP(net, members))[0][0]
    assert torch.nn.functional.cosine_similarity(t, g, dim=-1).mean().item() > 0.8  # through the gates of another batch


def test_the_bp_twin_starts_from_the_same_weights():
    assert torch.equal(_prealigned()[1].parameters.storage, _prealigned(BP)[1].parameters.storage)


@pytest.mark.parametrize("rule", ["bp", "fa", "shallow", "imposed_angle"])
def test_runs_of_a_pair_start_from_the_same_weights(rule):
    """Whichever rule trains: the accuracy gap is between networks that started alike."""
    settings = {
        "network": {"width": 8, "depth": 2, "initialisation": "pre_aligned"},
        "training": {"epochs": 1, "batch_size": 32, "lr": 1e-9},
        "data": {"name": "teacher", "samples": 400, "inputs": 6, "outputs": 4},
        "probe": {"log_steps": 0, "every_epochs": 0, "samples": 32},
    }
    study = Study.parse({"name": "x", "rules": [rule, "dfa"], "seeds": 2, **settings})
    losses = []
    for cohort in plan_cohorts(expand(study, fingerprint=fingerprint), device="cpu"):
        tables = train_cohort(cohort, load(study.data))
        losses.append(tables["checkpoints"].query("step == 0")["train_loss"].to_numpy())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_what_cannot_be_pre_aligned_says_so():
    masked = {"layers": [{}, {"signal_masked": 0.9999}]}
    with pytest.raises(StudyError, match="seed 0 has none at layer 2, where all of it is masked"):
        _prealigned(network=masked)
    with pytest.raises(StudyError, match="a batch for each of 2 layers; got 20 training samples"):
        _prealigned(samples=20)
    members = members_of(
        1,
        network={
            "kind": "cnn",
            "channels": [3, 2],
            "kernel": 3,
            "padding": 1,
            "pool": 2,
            "hidden": [],
            "initialisation": "pre_aligned",
        },
    )
    net, _, _ = cohort_of(members, shape=(2, 9, 9))
    with pytest.raises(StudyError, match="convolution above its first layer"):
        prealign(net, DFA(net, members), members, Split(torch.zeros(9, 2, 9, 9), torch.zeros(9, dtype=torch.int64)))
