"""Studies made in Python, without a file: as objects, as dicts, and back to files."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import alignkit
from alignkit import Claim, Design, Study
from alignkit.errors import StudyError
from alignkit.execution.run_study import known_rates, open_study, run_study, shipped_studies, study_plan
from alignkit.settings.network import MLP
from alignkit.study.plan import expand

SMALL = {
    "name": "small",
    "seeds": 2,
    "network": {"width": 8},
    "training": {"epochs": 1},
    "probe": {"measures": ["signal"], "samples": 32, "evaluation_samples": 32},
    "factors": {"network.depth": [1, 2]},
}
CLAIM = {
    "name": "c",
    "statement": "s",
    "factor": "depth",
    "levels": [1, 2],
    "direction": "increase",
    "smallest_effect": 1.0,
    "response": "signal_angle_deg",
}


def _run_ids(study: Study) -> list[str]:
    return [run.run_id for run in expand(study, fingerprint=str).runs]


@pytest.mark.parametrize("name", shipped_studies())
def test_every_shipped_study_reads_back_from_its_own_text(name, tmp_path):
    for profile in [None, *open_study(name).study.profiles]:
        study = open_study(name, profile=profile).study
        path = tmp_path / "back.toml"
        path.write_text(study.to_toml(), encoding="utf-8")
        back = open_study(path).study
        # A profile's text is the smaller study by itself.
        assert back == (study.model_copy(update={"profile": "", "profiles": {}}) if profile else study)
        assert _run_ids(back) == _run_ids(study)


def test_odd_values_survive_as_toml():
    study = Study(
        name="odd",
        title='a "quote", a back\\slash, a\nline and \t tab',
        factors={"rank": {"full": {}, "low": {"feedback.rank": 2}}, "network.layers": [[{}, {"norm": "batch"}, {}]]},
        training={"lr": 1e-5},
        rule={"decay": 0.5, "gates": (1, 2)},
        seeds=(3, 5),
    )
    assert Study.parse(tomllib.loads(study.to_toml())) == study
    with pytest.raises(StudyError, match=r"TOML has no None.*Give the levels names"):
        Study(name="odd", factors={"feedback.rank": [None, 2]}).to_toml()


def test_an_object_a_dict_and_a_file_are_the_same_study(tmp_path):
    study = Study(**SMALL, claims=[CLAIM])
    path = tmp_path / "small.toml"
    path.write_text(study.to_toml())
    typed = Study(
        name="small",
        seeds=2,
        network=MLP(width=8),
        training={"epochs": 1},
        probe=study.probe,
        designs={"study": Design(factors={"network.depth": (1, 2)})},
        claims=[Claim(**CLAIM)],
    )
    sources = [study, typed, {**SMALL, "claims": [CLAIM]}, study.options(), path]
    assert all(open_study(source).study == study for source in sources)
    assert len({tuple(_run_ids(open_study(source).study)) for source in sources}) == 1


def test_a_study_is_defined_run_judged_and_compared_without_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(**{**SMALL, "seeds": 6}, claims=[CLAIM])
    records = run_study(study, "out", workers=1)
    assert repr(records) == "Records('small': 24 runs, 2 cells, 6 seeds, rules bp and dfa, complete)"
    assert records.study == study
    assert alignkit.evaluate(records)[0].n_seeds == alignkit.compare(records, factor="depth").n_seeds == 6
    # the dict goes on in the same directory, and repeats nothing
    seen: list[int] = []
    again = run_study(
        {**SMALL, "seeds": 6, "claims": [CLAIM]},
        "out",
        workers=1,
        on_stage=lambda stage: lambda status: seen.append(status.runs_done),
    )
    assert seen == [24]
    pd.testing.assert_frame_equal(again.runs, records.runs)


def test_an_interrupt_leaves_records_and_the_same_call_goes_on(tmp_path):
    study = {**SMALL, "factors": {"network.depth": [1, 2, 3]}}

    def stop_early(stage):
        def show(status):
            if 0 < status.runs_done < status.runs:
                raise KeyboardInterrupt

        return show

    with pytest.raises(KeyboardInterrupt):
        run_study(study, tmp_path / "out", workers=1, on_stage=stop_early)
    part = alignkit.load(tmp_path / "out")
    assert len(part.runs) + part.missing == 12 and len(part.runs) > 0
    whole = run_study(study, tmp_path / "out", workers=1)
    assert whole.missing == 0
    kept = whole.layers[whole.layers["run_id"].isin(part.runs["run_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, part.layers)


def test_rules_and_rates_of_one_s_own_lie_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "rules_of_mine.py").write_text("from alignkit.rules.dfa import DFA\n\n\nclass Mine(DFA):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    study = Study(**{**SMALL, "rules": ["bp", "rules_of_mine:Mine"]}, pilot={"lr": [0.1], "rates": "mine.json"})
    source = open_study(study)
    assert source.committed_rates == Path("mine.json") and known_rates(source, None) is None
    assert set(run_study(Study(**{**SMALL, "rules": ["rules_of_mine:Mine"]}), "out", workers=1).runs["rule"]) == {
        "rules_of_mine:Mine"
    }


def test_a_name_that_looks_like_a_path_finds_no_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.path)
    with pytest.raises(StudyError, match="name: expected letters"):
        open_study({**SMALL, "name": "elsewhere/small", "rules": ["rules_of_mine:Mine"]})
    assert set(sys.path) - before <= {str(Path.cwd())}


def test_a_study_in_python_has_profiles_and_a_folder_of_data():
    study = Study(**SMALL, profiles={"cpu": {"seeds": 1, "levels": {"depth": [1]}}})
    for given in (study, study.options(), {**SMALL, "profiles": {"cpu": {"seeds": 1, "levels": {"depth": [1]}}}}):
        small = open_study(given, profile="cpu").study
        assert small.profile == "cpu" and small.seed_list == (0,)
        assert small.designs["study"].factors == {"network.depth": [1]}
    assert open_study(study, data_path="somewhere").study.data.path == "somewhere"
    with pytest.raises(StudyError, match=r'small: the study has no profile "gpu"'):
        open_study(study, profile="gpu")


def test_numbers_may_come_from_numpy_and_ranges():
    study = Study(
        name="n", seeds=range(3), network={"width": np.int64(8)},
        factors={"network.dropout": np.array([0.0, 0.5]), "network.depth": (1, 2)},
    )  # fmt: skip
    plain = Study(
        name="n",
        seeds=[0, 1, 2],
        network={"width": 8},
        factors={"network.dropout": [0.0, 0.5], "network.depth": [1, 2]},
    )
    assert study == plain and _run_ids(study) == _run_ids(plain)
    assert type(study.designs["study"].factors["network.dropout"][1]) is float


BAD = {
    "unknown section": (lambda: Study(name="a", netwrok={}), r'^Study: netwrok: a study has no such key; did you mean "network"\?'),
    "unknown key": (lambda: Study(name="a", network={"widht": 3}), r'^Study: network\.widht: network has no such key; did you mean "width"\?'),
    "no name": (lambda: Study(seeds=3), r"^Study: name: expected this key, which is missing"),
    "claim": (lambda: Claim(**{**CLAIM, "levles": 1}), r'^Claim: levles: a claim has no such key; did you mean "levels"\?'),
    "claim of a dict": (
        lambda: open_study({**SMALL, "claims": [{**CLAIM, "direction": "up"}]}),
        r"^small: claims\.0\.direction: expected \"increase\" or \"decrease\"; got 'up'",
    ),
    "factors twice": (lambda: Study(**SMALL, designs={"d": {}}), r"^Study: factors make a design of their own: move them"),
    "factors that are no table": (lambda: Study(name="a", factors=["norm"]), r"designs\.study\.factors: expected a table; got \['norm'\]"),
    "a level that cannot be": (
        lambda: study_plan({**SMALL, "factors": {"network.norm": ["none", "bacth"]}}),
        r"^small: designs\.study: network\.norm: expected .*did you mean \"batch\"\?",
    ),
    "no levels": (lambda: study_plan({**SMALL, "factors": {"network.norm": "batch"}}), r"^small: designs\.study\.factors\.network\.norm: expected section"),
    "records": (lambda: open_study(pd.DataFrame()), r"^expected a study: alignkit\.Study\(\.\.\.\), a dict, .*; got DataFrame"),
    "no study": (lambda: open_study("quikc"), r'^quikc: no such file, and no shipped study of that name; did you mean "quick"\?'),
}  # fmt: skip


@pytest.mark.parametrize("make,message", BAD.values(), ids=BAD)
def test_mistakes_name_the_key(make, message):
    with pytest.raises(StudyError, match=message):
        make()


def test_a_plan_shows_what_would_run_and_warns_of_too_few_seeds():
    plan = study_plan({**SMALL, "claims": [CLAIM]})
    assert repr(plan) == "Plan('small': 8 runs, 2 cells, 2 seeds, rules bp and dfa)"
    assert "depth: 1, 2" in plan._repr_html_() and "too few for the exact test" in plan._repr_html_()


def test_studies_and_judgements_need_no_torch():
    code = (
        "import sys, alignkit\n"
        "study = alignkit.Study(name='a', factors={'network.norm': ['none', 'batch']})\n"
        "study.to_toml(), study._repr_html_(), alignkit.evaluate, alignkit.recommendations\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
