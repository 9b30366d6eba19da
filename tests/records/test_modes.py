"""Records of several modes of measurement, and hidden layers that are named from an end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import grid, synthetic_records

from alignkit import Study, compare, load
from alignkit.claims.analysis import analyse
from alignkit.errors import AnalysisError, StudyError
from alignkit.execution.run_study import run_study
from alignkit.records.files import sha256
from alignkit.records.rows import layers_of
from alignkit.records.store import Records
from alignkit.records.summaries import run_summaries
from alignkit.report import page
from alignkit.study.plan import expand

CLAIM = {
    "name": "deeper", "statement": "s", "factor": "depth", "levels": [2, 3], "response": "signal_angle_deg",
    "direction": "increase", "smallest_effect": 1.0,
}  # fmt: skip
BASE: dict[str, Any] = {
    "name": "modes",
    "seeds": 2,
    "network": {"width": 8, "norm": "batch"},
    "training": {"epochs": 2, "batch_size": 128},
    "factors": {"network.depth": [2, 3]},
    "claims": [CLAIM],
}


def study_of(claim: dict[str, Any] | None = None, **probe: Any) -> Study:
    options = {"samples": 32, "evaluation_samples": 32, "log_steps": 2, **probe}
    return Study(**{**BASE, "probe": options, "claims": [{**CLAIM, **(claim or {})}]})


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same study measured in one mode, in two, in two everywhere, and in the second alone."""
    found = {}
    for name, probe in {
        "batch": {},
        "end": {"modes": ["batch", "eval"]},
        "all": {"modes": ["batch", "eval"], "modes_at": "all"},
        "eval": {"mode": "eval"},
    }.items():
        found[name] = tmp_path_factory.mktemp(name) / "study"
        run_study(study_of(**probe), found[name], workers=1)
    return found


@pytest.fixture(scope="module")
def records(stored: dict[str, Path]) -> dict[str, Records]:
    return {name: load(path) for name, path in stored.items()}


def without_ids(layers: pd.DataFrame) -> pd.DataFrame:
    return layers.drop(columns="run_id").reset_index(drop=True)


def test_each_mode_holds_what_a_study_of_it_alone_measures(records: dict[str, Records]) -> None:
    both, everywhere = records["end"].layers, records["all"].layers
    pd.testing.assert_frame_equal(without_ids(both[both["mode"] == "batch"]), without_ids(records["batch"].layers))
    of_step = ["step_cosine", "step_angle_deg", "update_ratio"]
    of_step = [name for name in of_step if name in both]
    for layers, steps in ((both, {records["eval"].layers["step"].max()}), (everywhere, None)):
        alone = records["eval"].layers
        alone = alone[alone["step"].isin(steps)] if steps else alone
        second = layers[layers["mode"] == "eval"]
        pd.testing.assert_frame_equal(
            without_ids(second.drop(columns=of_step)), without_ids(alone.drop(columns=of_step))
        )
        assert second[of_step].isna().all(axis=None)  # the last step has no mode
    assert records["end"].checkpoints["mode"].eq("batch").all()
    first = both.groupby("run_id", sort=False)["mode"].first()
    assert first.eq("batch").all() and not both.duplicated(["run_id", "step", "mode", "layer"]).any()


def test_summaries_take_the_first_mode_or_the_one_that_is_named(records: dict[str, Records]) -> None:
    both, batch, alone = records["end"], records["batch"], records["eval"]
    for response in ("signal_angle_deg", "gradient_cosine", "step_cosine", "signal_cosine_excess"):
        for options in ({}, {"summary": "auc"}, {"layer": 2}):
            ours, theirs = (run_summaries(r.runs, r.layers, response, **options) for r in (both, batch))
            assert np.array_equal(ours["value"], theirs["value"], equal_nan=True), (response, options)
    named = run_summaries(both.runs, both.layers, "signal_angle_deg", mode="eval")["value"]
    own = run_summaries(alone.runs, alone.layers, "signal_angle_deg")["value"]
    assert np.array_equal(named, own) and not np.allclose(named, ours["value"])
    everywhere = records["all"]
    named, own = (
        run_summaries(r.runs, r.layers, "gradient_cosine", summary="auc", mode="eval") for r in (everywhere, alone)
    )
    assert np.array_equal(named["value"], own["value"])
    assert compare(both, factor="depth", mode="eval").estimate == compare(alone, factor="depth").estimate


def test_the_order_of_rows_does_not_matter_to_records(records: dict[str, Records]) -> None:
    both = records["end"]
    shuffled = dataclasses.replace(both, layers=both.layers.sample(frac=1.0, random_state=1))
    assert set(layers_of(shuffled)["mode"]) == {"batch"} and len(layers_of(shuffled)) == len(records["batch"].layers)


def test_a_report_of_two_modes_counts_nothing_twice(stored: dict[str, Path], tmp_path: Path) -> None:
    for name in ("batch", "end"):
        page.write_report(load(stored[name]), tmp_path / name)
    tables = sorted(path.name for path in (tmp_path / "batch" / "tables").iterdir())
    assert tables == sorted(path.name for path in (tmp_path / "end" / "tables").iterdir()) and len(tables) > 5
    for name in (name for name in tables if not name.startswith("panels")):  # a panel asks in every mode measured
        ours, theirs = ((tmp_path / one / "tables" / name).read_bytes() for one in ("end", "batch"))
        assert ours == theirs, name
    assert "mode eval as well at the end" in (tmp_path / "end" / "index.html").read_text(encoding="utf-8")
    assert "as well" not in (tmp_path / "batch" / "index.html").read_text(encoding="utf-8").split("Probe")[1][:400]


def test_a_claim_is_judged_in_its_mode_and_layer(stored: dict[str, Path]) -> None:
    def judged(name: str, **claim: Any) -> float:
        records = load(stored[name])
        study = records.study.model_copy(update={"claims": study_of(claim).claims})
        return analyse(dataclasses.replace(records, study=study)).verdicts[0].estimate

    assert judged("end", mode="eval") == judged("eval") != judged("end")
    assert judged("end", mode="batch") == judged("end")
    assert judged("end", mode="eval", layer="last") == judged("eval", layer="last") != judged("eval", layer="first")


def test_old_files_take_the_mode_of_their_checkpoints(stored: dict[str, Path], tmp_path: Path) -> None:
    expected = load(stored["eval"]).layers
    for cohort in (stored["eval"] / "records").iterdir():
        layers = pq.read_table(cohort / "layers.parquet").drop_columns(["mode"])
        pq.write_table(layers, cohort / "layers.parquet")
        timing = json.loads((cohort / "timing.json").read_text())
        timing["sha256"]["layers"] = sha256((cohort / "layers.parquet").read_bytes())
        (cohort / "timing.json").write_text(json.dumps(timing))
    assert "mode" not in pa.parquet.read_schema(cohort / "layers.parquet").names
    old = load(stored["eval"])
    pd.testing.assert_frame_equal(old.layers, expected)
    assert old.layers["mode"].eq("eval").all()


@pytest.fixture(scope="module")
def deep() -> Records:
    return synthetic_records(designs={"depths": grid({"network.depth": [1, 2, 4]})}, seeds=2, rules=("bp", "dfa"))


def test_layers_are_counted_from_either_end(deep: Records) -> None:
    end = deep.layers[deep.layers["step"] == deep.layers["step"].max()].set_index(["run_id", "layer"])["signal_cosine"]
    depths = deep.runs.set_index("run_id")["depth"].astype(int)
    for name, number in {"first": lambda d: 1, "last": lambda d: d, "last-1": lambda d: d - 1}.items():
        table = run_summaries(deep.runs, deep.layers, "signal_cosine", layer=name)
        expected = [end.get((run, number(depths[run])), np.nan) for run in table["run_id"]]
        assert np.array_equal(table["value"], expected, equal_nan=True), name
    assert (run_summaries(deep.runs, deep.layers, "signal_cosine", layer="last-1")["missing"] != "").sum() == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "last-4"}, r"layer last-4: no run has it; hidden layers: 1, 2, 3, 4"),
        ({"layer": "middle"}, r'layer: expected the number of a hidden layer.*"last-1".*got .?middle'),
        ({"mode": "eval"}, r'mode "eval": nothing was measured in it.*batch'),
        ({"mode": 3}, "mode"),
        ({"response": "test_accuracy", "mode": "batch"}, r"one number per run.*mode='batch'"),
    ],
)
def test_a_summary_that_cannot_be_is_refused(deep: Records, options: dict[str, Any], message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        run_summaries(deep.runs, deep.layers, options.pop("response", "signal_cosine"), **options)


def test_a_mode_that_is_measured_at_the_end_has_no_average(records: dict[str, Records]) -> None:
    both = records["end"]
    with pytest.raises(AnalysisError, match=r'mode "eval": measured at fewer checkpoints.*modes_at = "all"'):
        run_summaries(both.runs, both.layers, "signal_cosine", summary="auc", mode="eval")


@pytest.mark.parametrize(
    ("claim", "probe", "message"),
    [
        ({"mode": "eval"}, {}, r"expected a mode that is measured, batch; got mode = \"eval\". Add it to probe.modes"),
        ({"mode": "eval", "summary": "auc"}, {"modes": ["batch", "eval"]}, r"measured at the end alone"),
        ({"mode": "eval", "response": "step_cosine"}, {"modes": ["batch", "eval"]}, r"of the last step of training"),
        ({"mode": "batch", "response": "test_accuracy"}, {}, r"one number per run.*mode \"batch\""),
        ({"layer": "last-2"}, {}, r'networks with depth 2 have, "last" to "last-1"; got layer = last-2'),
        ({"layer": 3}, {}, r"networks with depth 2 have, 1 to 2; got layer = 3"),
    ],
)
def test_a_claim_on_what_is_not_measured_is_refused(claim: dict[str, Any], probe: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        expand(study_of(claim, **probe), fingerprint=str)


def test_a_claim_on_what_is_measured_passes() -> None:
    for claim in ({"mode": "eval"}, {"mode": "batch", "summary": "auc"}, {"layer": "last-1"}, {"layer": "first"}):
        expand(study_of(claim, modes=["batch", "eval"]), fingerprint=str)
    expand(study_of({"mode": "eval", "summary": "auc"}, modes=["batch", "eval"], modes_at="all"), fingerprint=str)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({"modes": []}, "expected one or more different modes; got "),
        ({"modes": ["eval", "eval"]}, "expected one or more different modes"),
        ({"modes": ["middle"]}, r'probe.modes.0: expected "batch", "eval" or "train"; got .?middle'),
        ({"mode": "batch", "modes": ["eval", "batch"]}, r"expected mode to be the first of modes"),
        ({"modes": ["batch", "eval"], "reference_mode": "eval"}, "reference_mode.*goes with one mode alone"),
        ({"modes_at": "start"}, "probe.modes_at"),
    ],
)
def test_modes_that_contradict_each_other_are_refused(probe: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        study_of(**probe)


def test_the_same_measurement_is_the_same_run_however_it_is_said() -> None:
    def ids(study: Study) -> list[str]:
        return [run.run_id for run in expand(study, fingerprint=str).runs]

    assert ids(study_of()) == ids(study_of(modes=["batch"])) == ids(study_of(mode="batch", modes_at="all"))
    assert ids(study_of(mode="eval")) == ids(study_of(modes=["eval"])) != ids(study_of())
    assert len({tuple(ids(study_of(modes=m))) for m in (["batch"], ["batch", "eval"], ["eval", "batch"])}) == 3
    for study in (study_of(modes=["eval", "batch"]), study_of(modes=["train"])):
        assert ids(Study.parse(json.loads(study.to_json()))) == ids(study)
        assert study.probe.mode == study.probe.modes[0]


def test_a_design_may_list_other_modes() -> None:
    study = Study(
        **{**BASE, "claims": []},
        probe={"modes": ["batch", "eval"]},
    )
    other = Study(**{**study.options(), "designs": {"a": {"base": {"probe.modes": ["eval", "train"]}}}})
    assert {run.settings.probe.mode for run in expand(other, fingerprint=str).runs} == {"eval"}
