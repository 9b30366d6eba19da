"""A measure is added from outside of the package, in one file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from engine import cohort_of, members_of

import alignkit
from alignkit.columns import digits_of, label_of, unit_of
from alignkit.errors import StudyError
from alignkit.execution.run_study import open_study, study_plan
from alignkit.measures.probe import Probe
from alignkit.report.page import write_report
from alignkit.rules.dfa import DFA

sys.path.append(str(Path(__file__).parent))
import own_measure  # no part of the package

OWN = ["own_measure:Sparsity", "own_measure:SignAgreement", "own_measure:Moved"]
STUDY = """
name = "own"
rules = ["bp", "dfa"]
seeds = 3

[network]
width = 12
depth = 2
activation = "relu"

[training]
epochs = 2

[probe]
samples = 32
log_steps = 1
measures = {measures}

[designs.widths.factors]
network.width = [8, 16]

[[claims]]
name = "silent"
statement = "Wider layers are more silent"
factor = "width"
levels = [8, 16]
rule = "dfa"
response = "{response}"
direction = "{direction}"
smallest_effect = 0.01
{more}
"""


def write_study(folder, measures=(*["signal"], *OWN), *, response="zero_fraction", direction="increase", more=""):
    shutil.copy(own_measure.__file__, folder / "own_measure.py")
    text = STUDY.format(measures=json.dumps(list(measures)), response=response, direction=direction, more=more)
    (folder / "own.toml").write_text(text)
    return folder / "own.toml"


def test_it_runs_through_a_whole_study(tmp_path, without_pdf):
    out = tmp_path / "out"
    records = alignkit.run_study(write_study(tmp_path), out, workers=1)
    layers = records.layers
    own = ["zero_fraction", "sign_agreement", "sign_worst", "turn_deg", "largest_move"]
    assert list(layers.columns)[-5:] == own
    assert layers["zero_fraction"].between(0, 1).all() and layers["zero_fraction"].between(0.05, 0.95).any()
    assert (layers["sign_worst"] <= layers["sign_agreement"]).all() and layers["turn_deg"].between(0, 180).all()
    at_start = layers["step"] == 0  # a step is measured after the first one alone
    assert layers.loc[at_start, "largest_move"].isna().all() and (layers.loc[~at_start, "largest_move"] > 0).all()
    assert layers["signal_angle_deg"].notna().all() and layers["delta_cosine"].isna().all()
    (verdict,) = alignkit.evaluate(records)
    assert np.isfinite(verdict.estimate) and verdict.n_seeds == 3
    page = write_report(records, out).read_text()
    assert "fraction of the activations h_l that are zero" in page and "the same of the worst sample" in page
    assert f"{abs(verdict.estimate):.4f}" in page  # the digits that it asks for
    assert "raction of silent units" in page
    final = pd.read_csv(next(out.rglob("final_measures.csv")))
    assert set(own) <= set(final.columns)


def test_records_are_read_without_its_module(tmp_path):
    out = tmp_path / "out"
    alignkit.run_study(write_study(tmp_path, OWN), out, workers=1)
    script = (
        f"import alignkit; r = alignkit.load({str(out)!r}); from alignkit.columns import *; "
        "assert r.layers['turn_deg'].notna().all(); assert len(alignkit.evaluate(r)) == 1; "
        "print(label_of('zero_fraction'), '|', label_of('sign_worst'), '|', digits_of('zero_fraction'), "
        "unit_of('turn_deg'), better_side('turn_deg')); import sys; assert 'own_measure' not in sys.modules"
    )
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert told.strip() == "fraction of silent units | sign worst | 4 ° lower"


def test_what_alignkit_measures_stays_as_it_is(tmp_path):
    members = members_of(2, network={"width": 6, "depth": 2}, probe={"measures": ["signal", *OWN]})
    net, x, targets = cohort_of(members, shape=(5,))
    with_own, *_ = Probe(net, DFA(net, members), members, x[0], targets[0]).measure(0)
    members = members_of(2, network={"width": 6, "depth": 2}, probe={"measures": ["signal"]})
    alone, *_ = Probe(net, DFA(net, members), members, x[0], targets[0]).measure(0)
    assert set(with_own) - set(alone) == {"zero_fraction", "sign_agreement", "sign_worst", "turn_deg"}
    assert all(np.array_equal(alone[name], with_own[name]) for name in alone)
    assert with_own["zero_fraction"].shape == (2, 2)


def test_it_may_differentiate_and_samples_are_averaged(tmp_path):
    records = alignkit.run_study(
        write_study(tmp_path, ["own_measure:Curvature"], response="test_accuracy"), tmp_path / "out", workers=1
    )
    assert (records.layers["slope"] > 0).all()


def test_unknown_columns_have_a_name_in_words():
    assert (label_of("my_column"), unit_of("my_column"), digits_of("my_column")) == ("my column", "", 3)


@pytest.mark.parametrize(
    "name,message",
    {
        "Missing": r'measure "own_measure:Missing": cannot be imported \(AttributeError',
        "NoMeasure": "expected a subclass of alignkit.measures.measure.Measure; got",
        "Taken": 'got "signal_cosine", which alignkit has. Rename it',
        "Undeclared": r"expected columns = \(Column\(...\), ...\) of one or more",
        "Needless": "expected needs = a tuple of one or more of signals, deltas, network, step",
        "Lacking": 'it needs "deltas", and does not define of_deltas. Define it',
        "BadDigits": "column zero_fraction: expected a number of decimals, 0 to 12; got digits = -1",
    }.items(),
)
def test_a_wrong_declaration_is_one_sentence_before_anything_runs(tmp_path, name, message):
    path = write_study(tmp_path, [f"own_measure:{name}"])
    with pytest.raises(StudyError, match=message) as caught:
        study_plan(open_study(path), rates=None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name,message",
    {
        "Changing": "own_measure:Changing: expected a measure to leave the networks' parameters as it is; it changed",
        "Misshapen": r"of_network: expected zero_fraction of shape \[\d+\] or \[\d+, 32\]; got \[\d+, 32, \d+\]",
        "Short": "expected what was found at each of 2 hidden layers; got 1 of them",
        "Unnamed": r"reduce: expected something found by the name of each column .*; got no zero_fraction",
        "Failing": r"of_network: ZeroDivisionError: division by zero \(.*own_measure.py:\d+\)",
    }.items(),
)
def test_one_that_is_wrong_is_one_sentence(tmp_path, name, message):
    with pytest.raises(StudyError, match=message) as caught:
        alignkit.run_study(write_study(tmp_path, [f"own_measure:{name}"]), tmp_path / "out", workers=1)
    assert "\n" not in str(caught.value)


def test_claims_are_about_what_is_measured(tmp_path):
    def plan(*measures, **claim):
        return study_plan(open_study(write_study(tmp_path, measures, **claim)), rates=None)

    assert plan(*OWN, response="turn_deg_excess").own_columns.keys() == set(OWN)
    with pytest.raises(StudyError, match='there is no response "zero_fraction"'):
        plan("signal")
    with pytest.raises(StudyError, match='did you mean "zero_fraction"'):
        plan(*OWN, response="zero_fractoin")
    practice = 'practice = "Make layers wide"'
    with pytest.raises(StudyError, match="makes turn_deg worse"):
        plan(*OWN, response="turn_deg", more=practice)
    assert plan(*OWN, response="turn_deg", direction="decrease", more=practice)
    with pytest.raises(StudyError, match=r'is called "Sparsity"; .*, or "module:Class" for one of your own'):
        plan("Sparsity")
    with pytest.raises(StudyError, match="expected different measures"):
        plan(*OWN, OWN[0])


def test_a_factor_cannot_have_its_column_s_name(tmp_path):
    path = write_study(tmp_path, OWN)
    path.write_text(path.read_text().replace(
        "network.width = [8, 16]", 'zero_fraction = { few = { "network.width" = 8 }, many = { "network.width" = 16 } }'
    ).replace('"width"', '"zero_fraction"').replace("[8, 16]", '["few", "many"]'))  # fmt: skip
    with pytest.raises(StudyError, match='"zero_fraction", which is a factor of the study'):
        study_plan(open_study(path), rates=None)


def test_its_code_is_in_the_ids(tmp_path, monkeypatch):
    before = {run.run_id for run in study_plan(open_study(write_study(tmp_path)), rates=None).runs}
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr("alignkit.study.identities.code_identity", lambda name: "changed")
    assert before.isdisjoint({run.run_id for run in study_plan(open_study(write_study(other)), rates=None).runs})
