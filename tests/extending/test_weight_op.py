"""A kind of layer is added from outside of the package, in one file."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from engine import cohort_of, members_of

import alignkit
from alignkit.errors import StudyError
from alignkit.networks.stages import training_mode
from alignkit.rules.bp import BP
from alignkit.rules.dfa import DFA
from alignkit.rules.fa import FA

sys.path.append(str(Path(__file__).parent))
import own_op  # no part of the package

STUDY = """
name = "own"
rules = ["bp", "dfa", "fa"]
seeds = 2

[network]
op = "own_op:{op}"
width = 16
depth = 2

[training]
epochs = 3

[probe]
samples = 32
"""


def write_study(folder: Path, op: str = "Shifted") -> Path:
    shutil.copy(own_op.__file__, folder / "own_op.py")
    (folder / "own.toml").write_text(STUDY.format(op=op))
    return folder / "own.toml"


def test_it_runs_through_a_whole_study(tmp_path):
    records = alignkit.run_study(write_study(tmp_path), tmp_path / "out", workers=1)
    assert set(records.layers["layer_name"]) == {"shifted1", "shifted2"}
    ends = records.layers[records.layers["step"] == records.layers["step"].max()]
    for measure in ("signal_angle_deg", "delta_cosine", "gradient_cosine", "step_cosine", "effective_rank"):
        assert ends[measure].notna().all(), measure
    own_way_back = ends["run_id"].isin(records.runs.loc[records.runs["rule"] == "dfa", "run_id"])
    assert ends.loc[own_way_back & (ends["layer"] == 1), "weight_cosine"].isna().all()  # no product of matrices
    assert (records.runs["test_accuracy"] > 0.3).all()
    runs = records.runs["parameters"].iloc[0]
    assert runs == 2 * (2 * 16 + 16) + 16 * 10 + 10


@pytest.mark.parametrize("network", [{}, {"norm": "batch", "dropout": 0.2}, {"frozen": 0.3, "activation": "relu"}])
def test_bp_through_it_is_autograd(network):
    members = members_of(2, network={"width": 8, "depth": 2, "op": "own_op:Shifted", **network})
    net, x, targets = cohort_of(members, shape=(9,))
    leaves = {key: view.detach().clone().requires_grad_() for key, view in net.parameters.views.items()}
    forward_pass = net.forward(x, targets, training_mode(1))
    gradients = net.parameters.like()
    net.write_gradients(forward_pass, BP(net, members), gradients)
    h = forward_pass.inputs[0]
    for layer in (1, 2):
        z = net._ops[layer - 1].forward(h, leaves[layer, "weight"], leaves[layer, "bias"])
        h = _through(net, layer, z, leaves, forward_pass)
    output = h @ leaves[3, "weight"].mT + leaves[3, "bias"][:, None]
    loss = torch.nn.functional.cross_entropy(output.flatten(0, 1), targets.flatten(), reduction="sum")
    wanted = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    for key, gradient in wanted.items():
        mask = 1.0 if net.masks is None else net.masks.trained.get(key[0], {}).get(key[1], 1.0)
        torch.testing.assert_close(gradients.views[key], gradient * mask, rtol=1e-9, atol=1e-11)


def _through(net, layer, z, leaves, forward_pass):
    """The stages of a layer as autograd sees them, dropout under the masks of the pass."""
    for stage, cache in zip(net.stages[layer - 1], forward_pass.caches[layer - 1], strict=True):
        name = type(stage).__name__
        if name == "Norm":
            z = (z - z.mean(1, keepdim=True)) / (z.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            z = z * leaves[layer, "gain"][:, None] + leaves[layer, "shift"][:, None]
        elif name == "Activation":
            z = z.relu() if net.layers[layer - 1].options.activation == "relu" else z.tanh()
        else:
            z = z * cache
    return z


@pytest.mark.parametrize("rule_of", [BP, DFA, FA])
def test_a_member_does_not_depend_on_its_company(rule_of):
    members = members_of(3, network={"width": 8, "depth": 2, "op": "own_op:Shifted"})
    together, x, targets = cohort_of(members, shape=(9,))
    alone, _, _ = cohort_of(members[:1], shape=(9,))
    lowest = [
        net.backward(net.forward(x[:count], targets[:count], training_mode(1)), rule_of(net, members[:count]))[1][0][:1]
        for net, count in ((together, 3), (alone, 1))
    ]
    assert torch.equal(*lowest)


def test_one_that_is_wrong_is_one_sentence(tmp_path):
    with pytest.raises(StudyError, match=r"Turned.forward: expected \[2, 32, 16\] .* at layer shifted1; got"):
        alignkit.run_study(write_study(tmp_path, "Turned"), tmp_path / "out", workers=1)
    with pytest.raises(StudyError, match=r'op "own_op:Missing": cannot be imported'):
        alignkit.run_study(write_study(tmp_path, "Missing"), tmp_path / "other", workers=1)
    (tmp_path / "own.toml").write_text(STUDY.replace("own_op:{op}", "square"))
    with pytest.raises(StudyError, match='op: expected "linear", or "module:Class"'):
        alignkit.run_study(tmp_path / "own.toml", tmp_path / "third", workers=1)


def test_its_code_is_in_the_ids(tmp_path, monkeypatch):
    from alignkit.execution.run_study import open_study, study_plan

    before = {run.run_id for run in study_plan(open_study(write_study(tmp_path)), rates=None).runs}
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr("alignkit.study.identities.code_identity", lambda name: "changed")
    assert before.isdisjoint({run.run_id for run in study_plan(open_study(write_study(other)), rates=None).runs})
