"""Rules are added from outside of the package, one file each: with options, with memory, with updates of their own."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from engine import cohort_of, members_of

import alignkit
from alignkit.cli.main import main
from alignkit.errors import StudyError
from alignkit.networks.parameters import Parameters
from alignkit.networks.stages import training_mode
from alignkit.rules.base import Rule
from alignkit.rules.bp import BP
from alignkit.training.rule_checks import check_rule
from alignkit.training.update import Update

sys.path.append(str(Path(__file__).parent))
import own_rules  # no part of the package

STUDY = """
name = "own"
rules = ["bp", "own_rules:SignSymmetry", "own_rules:KolenPollack", "own_rules:LocalLoss"]
seeds = 2

[network]
width = 16
depth = 2

[training]
epochs = {epochs}

[probe]
samples = 64
log_steps = {log_steps}
every_epochs = {every_epochs}

[designs.decays.factors]
rule.decay = [0.0, 1e-3]
"""


def write_study(folder: Path, *, epochs: int = 3, log_steps: int = 2, every_epochs: int = 1, extra: str = "") -> Path:
    shutil.copy(own_rules.__file__, folder / "own_rules.py")
    path = folder / "own.toml"
    text = STUDY.format(epochs=epochs, log_steps=log_steps, every_epochs=every_epochs)
    path.write_text(text.replace("[probe]", f"{extra}\n[probe]") if extra else text)
    return path


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    return alignkit.run_study(write_study(folder), folder / "out", workers=1), folder / "out"


def test_they_run_through_a_whole_study_with_an_option_as_a_factor(records):
    runs = records[0].runs
    assert runs.groupby("rule").size().to_dict() == {
        "bp": 2, "own_rules:SignSymmetry": 2, "own_rules:KolenPollack": 4, "own_rules:LocalLoss": 2,
    }  # fmt: skip
    assert (runs["test_accuracy"] > 0.4).all() and not runs["diverged"].any()
    decays = runs.set_index("rule")["decay"]
    assert (
        decays["own_rules:KolenPollack"].dropna().nunique() == 2 and decays.drop("own_rules:KolenPollack").isna().all()
    )
    effect = alignkit.compare(records[0], factor="decay", rule="own_rules:KolenPollack").to_frame()
    assert len(effect) == 1 and np.isfinite(effect["estimate"]).all()


def test_the_report_calls_them_by_their_names(records, tmp_path):
    page = alignkit.write_report(records[0], tmp_path).read_text(encoding="utf-8")
    assert "Kolen-Pollack" in page and "sign-symmetry" in page and "LocalLoss" in page
    assert "#117733" in page  # in the colour that it asks for
    assert "own_rules:Kolen" not in page.split('id="study"')[0]


def test_measuring_leaves_every_rule_as_it_was(records, tmp_path):
    """The same run with many checkpoints and with none ends in the same weights: in the same losses, to the bit."""
    bare = alignkit.run_study(write_study(tmp_path, log_steps=0, every_epochs=0), tmp_path / "bare", workers=1)
    ends = ["train_loss", "validation_loss", "test_loss", "test_accuracy"]
    much, little = (found.runs.sort_values(["rule", "cell", "seed"])[ends] for found in (records[0], bare))
    assert np.array_equal(much.to_numpy(), little.to_numpy())
    assert len(bare.checkpoints) < len(records[0].checkpoints)


def test_options_that_no_rule_declares_are_refused_and_values_are_checked(tmp_path, monkeypatch, capsys):
    for extra, message in {
        "[rule]\ndecy = 0.1\n": "rule.decy: no rule of bp, own_rules:SignSymmetry, own_rules:KolenPollack, "
        'own_rules:LocalLoss has such an option; did you mean "decay"',
        "[rule]\nsimilarity = 2.0\n": "similarity: expected less than 1; got 2.0",
    }.items():
        path = write_study(tmp_path, extra=extra)
        monkeypatch.setattr(sys, "argv", ["alignkit", "plan", str(path)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2 and message in " ".join(capsys.readouterr().err.split())


def test_what_a_rule_does_not_read_is_not_in_its_id(tmp_path):
    plan = {run.run_id for run in alignkit.load(_run(tmp_path / "a", "")).runs.itertuples()}
    other = {
        run.run_id for run in alignkit.load(_run(tmp_path / "b", "[rule]\nmagnitudes = 'redrawn'\n")).runs.itertuples()
    }
    assert len(plan & other) == len(plan) - 2  # but those of sign-symmetry, two seeds


def _run(folder: Path, extra: str) -> Path:
    folder.mkdir()
    alignkit.run_study(
        write_study(folder, epochs=1, log_steps=0, every_epochs=0, extra=extra), folder / "out", workers=1
    )
    return folder / "out"


def step(net, rule, members, forward_pass) -> None:
    Update(net, rule, BP(net, members), members).step(forward_pass)


def test_kolen_pollack_from_the_weights_is_bp_and_else_comes_nearer_by_the_decay_alone():
    members = members_of(2, network={"width": 8, "depth": 2}, rule={"decay": 0.05}, training={"lr": 0.1})
    net, x, targets = cohort_of(members, shape=(6,))
    rule = own_rules.KolenPollack(net, members)
    apart = [torch.linalg.vector_norm(net.weight(layer) - rule.matrices[layer - 2], dim=(1, 2)) for layer in (2, 3)]
    for taken in range(1, 6):
        step(net, rule, members, net.forward(x, targets, training_mode(taken)))
        for layer, before in zip((2, 3), apart, strict=True):
            now = torch.linalg.vector_norm(net.weight(layer) - rule.matrices[layer - 2], dim=(1, 2))
            torch.testing.assert_close(now, before * 0.95**taken, rtol=1e-10, atol=0.0)
    for layer in (2, 3):
        rule.matrices[layer - 2].copy_(net.weight(layer))
    forward_pass = net.forward(x, targets, training_mode(6))
    for own, bp in zip(
        net.backward(forward_pass, rule)[1], net.backward(forward_pass, BP(net, members))[1], strict=True
    ):
        torch.testing.assert_close(own, bp)


def test_sign_symmetry_is_bp_up_to_a_scale_where_weights_have_one_size():
    members = members_of(1, network={"width": 8, "depth": 2})
    net, x, targets = cohort_of(members, shape=(6,))
    for layer in (2, 3):
        net.weight(layer).copy_(0.3 * net.weight(layer).sign())
    forward_pass = net.forward(x, targets, training_mode(1))
    own, bp = (net.backward(forward_pass, rule(net, members))[0] for rule in (own_rules.SignSymmetry, BP))
    for t, g in zip(own, bp, strict=True):
        torch.testing.assert_close(torch.nn.functional.cosine_similarity(t, g, dim=-1), torch.ones(1, 6).double())


@pytest.mark.parametrize("training", [{}, {"momentum": 0.9}, {"optimiser": "adam"}, {"update": "norm_matched"}])
def test_own_gradients_move_the_weights_and_are_what_is_measured(training):
    members = members_of(2, network={"width": 8, "depth": 2}, rule={"similarity": 0.9}, training=training)
    net, x, targets = cohort_of(members, shape=(6,))
    rule = own_rules.LocalLoss(net, members)
    forward_pass = net.forward(x, targets, training_mode(1))
    gradients: Parameters = net.parameters.like()
    deltas = net.write_gradients(forward_pass, rule, gradients)
    before = net.parameters.copy()
    own = rule.own_gradients(1, forward_pass, deltas[0])["weight"]
    torch.testing.assert_close(gradients.views[1, "weight"], own)
    assert not torch.allclose(own, net.weight_gradient(1, deltas[0], forward_pass))
    step(net, rule, members, forward_pass)
    moved = before.views[1, "weight"] - net.weight(1)
    if training.get("optimiser") != "adam":
        assert torch.nn.functional.cosine_similarity(moved.flatten(1), own.flatten(1)).min() > 1 - 1e-10
    assert moved.abs().sum() > 0


class Told(Rule):
    def teaching_signal(self, layer, forward_pass, delta_above):
        return None if delta_above is None else self.network.transport(layer + 1, delta_above)


class LearnsWhenAsked(Told):
    calls = 0

    def teaching_signal(self, layer, forward_pass, delta_above):
        self.calls += 1
        return super().teaching_signal(layer, forward_pass, delta_above) * self.calls


class ChangesTheError(Told):
    def teaching_signal(self, layer, forward_pass, delta_above):
        forward_pass.error.mul_(2.0)
        return super().teaching_signal(layer, forward_pass, delta_above)


class NotLinear(Told):
    linear_in_error = True

    def teaching_signal(self, layer, forward_pass, delta_above):
        return forward_pass.error.sign() @ self.network.weight(len(self.network.layers)).abs()


class KeepsItsSignal(Told):
    makes_its_signals = True

    def __init__(self, network, members):
        super().__init__(network, members)
        self.kept = {}

    def teaching_signal(self, layer, forward_pass, delta_above):
        if layer not in self.kept:
            self.kept[layer] = super().teaching_signal(layer, forward_pass, delta_above)
        return self.kept[layer]


class NoDelta(Told):
    def applied_delta(self, layer, delta):
        return None


class WholeNumbers(Told):
    def teaching_signal(self, layer, forward_pass, delta_above):
        return super().teaching_signal(layer, forward_pass, delta_above).sign().to(torch.int64)


class WrongGradient(Told):
    def own_gradients(self, layer, forward_pass, delta):
        return {"weight": delta}


@pytest.mark.parametrize(
    ("rule_of", "message"),
    [
        (LearnsWhenAsked, "expected the same signal whenever it is asked for at one step; two calls gave two signals"),
        (ChangesTheError, "expected the pass to stay as it is; the error was changed in place"),
        (NotLinear, "linear_in_error: expected half the delta for half the error; got another at hidden layer 1"),
        (KeepsItsSignal, "makes_its_signals: expected a new tensor at every call; the signal at hidden layer 1"),
        (NoDelta, "applied_delta: expected a delta of shape .*; got None"),
        (WholeNumbers, r"teaching_signal: expected .*float64 on cpu; got .*int64"),
    ],
)
def test_a_rule_that_is_not_what_it_says_is_an_error_and_no_wrong_number(rule_of, message):
    members = members_of(1, network={"width": 8, "depth": 2})
    net, x, targets = cohort_of(members, shape=(6,))
    with pytest.raises(StudyError, match=message):
        check_rule(net, rule_of(net, members), net.forward(x, targets, training_mode(1)))


def test_gradients_of_another_shape_are_refused():
    members = members_of(1, network={"width": 8, "depth": 2})
    net, x, targets = cohort_of(members, shape=(6,))
    with pytest.raises(StudyError, match=r"own_gradients: expected weight of \[1, 8, 6\].*; got weight of \[1, 6, 8\]"):
        step(net, WrongGradient(net, members), members, net.forward(x, targets, training_mode(1)))


@pytest.mark.parametrize("rule_of", [Told, own_rules.SignSymmetry, own_rules.KolenPollack, own_rules.LocalLoss, BP])
def test_honest_rules_pass(rule_of):
    members = members_of(2, network={"width": 8, "depth": 2}, dtype="float32")
    net, x, targets = cohort_of(members, shape=(6,))
    check_rule(net, rule_of(net, members), net.forward(x, targets, training_mode(1)))


def test_what_a_rule_learns_is_kept_loaded_and_watched():
    members = members_of(2, network={"width": 8, "depth": 2})
    net, _, _ = cohort_of(members, shape=(6,))
    one, other = own_rules.KolenPollack(net, members), own_rules.KolenPollack(net, members)
    one.matrices[0].mul_(3.0)
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    assert all(map(torch.equal, one.matrices, other.matrices)) and one.finite().all()
    one.matrices[1][1, 0, 0] = torch.nan
    assert one.finite().tolist() == [True, False]
    with pytest.raises(StudyError, match=r"load_state: expected B2, B3; got nothing|got $"):
        other.load_state({})
