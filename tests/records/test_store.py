"""Records on disk: what is written comes back, and what is damaged is named and never misread."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import grid, synthetic_records

from alignkit.columns import CHECKPOINTS, FORMAT_VERSION, LAYERS, RUNS
from alignkit.errors import AnalysisError, OutOfMemory, RecordsError
from alignkit.records.files import TABLES, read_table, write_bytes, write_text
from alignkit.records.plan_file import read_plan
from alignkit.records.rows import curves, final_values
from alignkit.records.store import clear_unfinished, finished_cohorts, finished_run_ids, load, write_cohort
from alignkit.records.summaries import run_summaries
from alignkit.report import page

COHORTS = {"00000000000000aa": ("r2", "r3"), "00000000000000bb": ("r0", "r1")}
FIRST, SECOND = COHORTS
TIMING = {"seconds": 1.5, "runs": 2, "steps": 10, "device": "cpu", "torch": "2"}


def tables_of(run_ids):
    """A cohort's tables, made up from the run ids."""

    def frame(columns, keys):
        rows = [
            {
                name: f"{name} {index}"
                if kind == "string"
                else kind == "bool"
                if kind == "bool"
                else index + len(name) / 7
                for name, (kind, _) in columns.items()
            }
            | key
            for index, key in enumerate(keys)
        ]
        kinds = {name: kind for name, (kind, _) in columns.items() if kind in ("int64", "Int64")}
        table = pd.DataFrame(rows)
        for name, kind in kinds.items():
            table[name] = table[name].astype("float64").round().astype(kind)
        return table

    runs = frame(RUNS, [{"run_id": run_id, "test_accuracy": np.nan if run_id == "r1" else 0.1} for run_id in run_ids])
    runs.loc[0, "diverged_step"] = pd.NA
    known = ["study", "rule", "cell", "designs", "bp_run_id", "seed", "held_out"]
    steps = [{"run_id": run_id, "step": step, "mode": "batch"} for step in (0, 5) for run_id in run_ids]
    layers = [{**row, "layer": layer, "chance_p": np.nan} for row in steps for layer in (1, 2)]
    return {"runs": runs.drop(columns=known), "checkpoints": frame(CHECKPOINTS, steps), "layers": frame(LAYERS, layers)}


def plan_of(**changes):
    runs = [
        {"run_id": f"r{i}", "rule": "dfa", "cell": f"norm={norm}", "designs": "a", "bp_run_id": "", "seed": i % 2,
         "levels": {"norm": norm, "width": None}}
        for i, norm in enumerate(("none", "none", "batch", "batch"))
    ]  # fmt: skip
    return {"format": FORMAT_VERSION, "factors": ["norm", "width"], "runs": runs, **changes}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    directory = tmp_path_factory.mktemp("healthy")
    write_text(directory / "study.json", '{"name": "small"}')
    write_text(directory / "plan.json", json.dumps(plan_of()))
    for cohort_id, run_ids in COHORTS.items():
        write_cohort(directory, cohort_id, tables_of(run_ids), TIMING)
    return directory


@pytest.fixture
def copy(healthy, tmp_path):
    return Path(shutil.copytree(healthy, tmp_path / "copy"))


def csvs(directory):
    records = load(directory)
    return {table: getattr(records, table).to_csv(index=False) for table in TABLES}


def message_of(directory):
    with pytest.raises(RecordsError) as raised:
        load(directory)
    return str(raised.value)


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _cohort(directory):
    return directory / "records" / FIRST


def rewrite(directory, table, change):
    """Put a changed table in a cohort, by a writer that leaves checksums out."""
    folder = _cohort(directory)
    (folder / "timing.json").write_text(json.dumps(TIMING))
    arrow = pq.read_table(folder / f"{table}.parquet")
    pq.write_table(change(arrow), folder / f"{table}.parquet")


# Healthy records


def test_runs_without_records_are_known_from_the_plan(copy):
    assert load(copy).unfinished.empty
    shutil.rmtree(copy / "records" / FIRST)
    records = load(copy)
    assert records.missing == 2 and list(records.unfinished["run_id"]) == ["r2", "r3"]
    assert list(records.unfinished["norm"]) == ["batch", "batch"] and list(records.unfinished["seed"]) == [0, 1]
    write_text(copy / "study.json", '{"name": "small", "seeds": 1, "held_out_seeds": [1]}')
    records = load(copy)
    assert list(records.unfinished["run_id"]) == ["r2"] and list(records.held_out.unfinished["run_id"]) == ["r3"]


def test_what_is_written_comes_back_in_the_order_of_the_plan(healthy):
    records = load(healthy)
    assert list(records.runs["run_id"]) == ["r0", "r1", "r2", "r3"]
    assert records.factors == ("norm", "width") and records.missing == 0
    names = list(RUNS)
    cut = names.index("held_out") + 1
    assert list(records.runs) == [*names[:cut], "norm", "width", *names[cut:]]
    for table, columns in (("checkpoints", CHECKPOINTS), ("layers", LAYERS)):
        frame = getattr(records, table)
        assert list(frame) == list(columns)
        written = pd.concat([tables_of(run_ids)[table] for run_ids in COHORTS.values()])
        keys = [key for key in ("run_id", "step", "layer") if key in frame]
        expected = written.sort_values(keys, ignore_index=True)
        pd.testing.assert_frame_equal(frame, expected[list(columns)], check_exact=True)
    for frame, columns in ((records.runs, RUNS), (records.checkpoints, CHECKPOINTS), (records.layers, LAYERS)):
        for name, (kind, _) in columns.items():
            assert kind == "string" or str(frame[name].dtype) == kind, name
    assert list(records.timing["seconds"]) == [1.5, 1.5] and "sha256" not in records.timing
    assert finished_run_ids(healthy) == {"r0", "r1", "r2", "r3"}
    assert not list(healthy.rglob(".*"))


def test_pandas_metadata_has_no_say(copy, healthy):
    rewrite(copy, "runs", lambda t: t.replace_schema_metadata({b"alignkit_format": b"1", b"pandas": b"\xff{"}))
    assert csvs(copy) == csvs(healthy)


def test_runs_that_the_plan_no_longer_has_are_left_out(copy):
    plan = plan_of()
    write_text(copy / "plan.json", json.dumps({**plan, "runs": plan["runs"][:1]}))
    records = load(copy)
    assert set(records.runs["run_id"]) == set(records.layers["run_id"]) == {"r0"}


# Damage


def _flips(directory, *, count, seed):
    """Flip one byte of a cohort's tables after another; the file, and the tables or the error that came."""
    generator = random.Random(seed)
    for _ in range(count):
        path = _cohort(directory) / f"{generator.choice(list(TABLES))}.parquet"
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole))] ^= generator.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            yield path, csvs(directory)
        except RecordsError as error:
            yield path, error
        path.write_bytes(whole)


def test_no_flipped_byte_is_misread(copy):
    shutil.rmtree(copy / "records" / SECOND)
    expected = csvs(copy)
    for path, outcome in _flips(copy, count=300, seed=0):
        assert outcome == expected or str(path) in str(outcome)


@pytest.mark.slow
def test_without_checksums_a_flipped_byte_raises_nothing_else(copy):
    shutil.rmtree(copy / "records" / SECOND)
    (_cohort(copy) / "timing.json").unlink()
    outcomes = [outcome for _, outcome in _flips(copy, count=80, seed=1)]
    assert sum(isinstance(outcome, RecordsError) for outcome in outcomes) > 25


def _replace_by_a_folder(path):
    path.unlink()
    path.mkdir()


def _column(name, values):
    return lambda t: t.set_column(t.column_names.index(name), name, pa.array(values(t.num_rows)))


def _empty(directory):
    rewrite(directory, "runs", lambda t: t.slice(0, 0))


TABLE_DAMAGE = {
    "checksum": (lambda d: shutil.copy(_cohort(d).with_name(SECOND) / "layers.parquet", _cohort(d)), "layers.parquet: damaged (its checksum"),
    "truncated": (lambda d: (_cohort(d) / "layers.parquet").write_bytes(b"PAR1"), "layers.parquet: damaged"),
    "lost": (lambda d: (_cohort(d) / "runs.parquet").unlink(), "runs.parquet: missing"),
    "folder": (lambda d: _replace_by_a_folder(_cohort(d) / "runs.parquet"), "runs.parquet: expected a file; got a folder"),
    "no rows": (_empty, "runs.parquet: damaged (expected at least one row; got none)"),
    "lost checkpoints": (lambda d: rewrite(d, "checkpoints", lambda t: t.filter(pa.compute.equal(t["run_id"], "r2"))), "expected the same runs in checkpoints.parquet"),
    "lost layers": (lambda d: rewrite(d, "layers", lambda t: t.filter(pa.compute.equal(t["run_id"], "r2"))), "expected the same runs in layers.parquet"),
}  # fmt: skip


@pytest.mark.parametrize("damage,message", TABLE_DAMAGE.values(), ids=TABLE_DAMAGE)
def test_a_damaged_cohort_is_named_and_repeated(copy, damage, message):
    damage(copy)
    text = message_of(copy)
    assert message in text and f"Remove the folder {_cohort(copy)} and run the same command again" in text


OTHERWISE_TYPED = {
    "text for numbers": (lambda d: rewrite(d, "runs", _column("lr", lambda n: ["0.1"] * n)), "column lr: expected float64; got string"),
    "numbers for text": (lambda d: rewrite(d, "layers", _column("signal", range)), "column signal: expected string; got int64"),
    "gaps in a key": (lambda d: rewrite(d, "layers", _column("layer", lambda n: [None, *range(n - 1)])), "column layer: expected int64; got int64 with 1 gaps"),
    "no key": (lambda d: rewrite(d, "checkpoints", lambda t: t.drop_columns(["step"])), "lacks the column step, by which its rows are told apart"),
    "two of a name": (lambda d: rewrite(d, "layers", lambda t: t.append_column("gate", t["gate"])), "expected columns of different names; got gate twice"),
}  # fmt: skip


@pytest.mark.parametrize("change,message", OTHERWISE_TYPED.values(), ids=OTHERWISE_TYPED)
def test_a_whole_file_of_other_columns_is_kept(copy, change, message):
    change(copy)
    text = message_of(copy)
    assert message in text and "keep them: read them with the alignkit that wrote them" in text
    assert f"move the folder {_cohort(copy)} away" in text and "emove" not in text


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_column_that_an_old_file_lacks_is_missing(copy, healthy, everywhere):
    if everywhere:
        shutil.rmtree(copy / "records" / SECOND)
    lost = {"runs": ["lr", "steps", "diverged", "diverged_step"], "checkpoints": ["mode"], "layers": ["gate", "signal"]}
    for table, names in lost.items():
        rewrite(copy, table, lambda t, names=names: t.drop_columns(names))
    old, whole = load(copy), load(healthy)
    kinds = {"lr": "float64", "steps": "Int64", "diverged": "boolean", "diverged_step": "Int64", "gate": "float64"}
    for table, names in lost.items():
        found, expected = getattr(old, table), getattr(whole, table)
        assert list(found) == list(expected)
        of_file = found["run_id"].isin(COHORTS[FIRST])
        for name in names:
            assert found.loc[of_file, name].isna().all() and found.loc[~of_file, name].notna().any() != everywhere
            assert str(found[name].dtype) == kinds.get(name, str(found["run_id"].dtype)), name
        left = [name for name in found if name not in names]
        same = expected["run_id"].isin(found["run_id"])
        pd.testing.assert_frame_equal(found[left], expected.loc[same, left].reset_index(drop=True), check_exact=True)
    assert finished_run_ids(copy) == set(old.runs["run_id"])


def _with_foreign(directory):
    """A cohort as a later version, or a measure of the user's own, might have written it."""
    big = 2**53 + 1
    changes = {
        "runs": {"seed": "9", "norm": "not the plan's", "my_count": [big, None], "my_flag": True},
        "checkpoints": {"my_loss": 0.25},
        "layers": {"my_measure": 0.5, "my_note": "seen", "my_rank": 3},
    }
    for table, columns in changes.items():

        def wider(arrow, columns=columns):
            for name, value in columns.items():
                values = value if isinstance(value, list) else [value] * arrow.num_rows
                arrow = arrow.append_column(name, pa.array(values))
            return arrow

        rewrite(directory, table, wider)
    return big


def test_a_column_that_is_new_is_kept(copy, healthy):
    big = _with_foreign(copy)
    found, plain = load(copy), load(healthy)
    assert list(found.runs) == [*plain.runs, "my_count", "my_flag"]
    assert list(found.layers) == [*plain.layers, "my_measure", "my_note", "my_rank"]
    runs = found.runs.set_index("run_id")
    assert runs["my_count"].tolist() == [pd.NA, pd.NA, big, pd.NA] and str(runs["my_flag"].dtype) == "boolean"
    assert runs["seed"].tolist() == [0, 1, 0, 1] and runs["norm"].tolist() == ["none", "none", "batch", "batch"]
    own = found.layers["run_id"].isin(COHORTS[FIRST])
    assert (found.layers.loc[own, "my_measure"] == 0.5).all() and found.layers.loc[~own, "my_measure"].isna().all()
    assert str(found.layers["my_rank"].dtype) == "Int64" and set(found.layers.loc[own, "my_note"]) == {"seen"}
    for table in TABLES:
        known = getattr(plain, table)
        pd.testing.assert_frame_equal(getattr(found, table)[list(known)], known, check_exact=True)


def test_a_measure_that_is_new_can_be_asked_for(copy):
    _with_foreign(copy)
    found = load(copy)
    table = run_summaries(found.runs.assign(diverged=False), found.layers, "my_measure").set_index("run_id")
    assert table["value"].tolist()[2:] == [0.5, 0.5] and table["missing"].tolist()[:2] == ["my_measure undefined"] * 2
    assert run_summaries(found.runs, found.layers, "my_rank", summary="auc", layer=2)["value"].tolist()[2:] == [3, 3]
    assert final_values(found, rule="dfa", design="a", response="my_measure")["value"].tolist()[2:] == [0.5, 0.5]
    assert curves(found, rule="dfa", response="my_measure")["mean"].unique().tolist() == [0.5]
    with pytest.raises(AnalysisError, match=r"no such measure.*my_measure, my_rank"):
        run_summaries(found.runs, found.layers, "my_note")


def test_what_is_new_is_written_again(copy):
    _with_foreign(copy)
    cohort = "00000000000000cc"
    tables = {table: read_table(_cohort(copy) / f"{table}.parquet", table, checksum=None, mend="") for table in TABLES}
    shutil.rmtree(_cohort(copy))
    write_cohort(copy, cohort, tables, TIMING)
    assert load(copy).layers["my_measure"].notna().any()


@pytest.mark.parametrize("content", [None, b'{"seco', b"\xff", b"[]", b'{"sha256": 3}'])
def test_a_lost_or_torn_timing_loses_no_records(copy, healthy, content):
    path = _cohort(copy) / "timing.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert csvs(copy) == csvs(healthy)
    assert load(copy).timing["seconds"].isna().tolist() == [True, False]


@pytest.mark.parametrize("name", ["records/00000000000000aa/layers.parquet", "plan.json", "study.json"])
def test_what_may_not_be_read_is_kept(copy, monkeypatch, name):
    read = Path.read_bytes

    def refuse(path):
        if path == copy / name:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    text = message_of(copy)
    assert f"{copy / name}: cannot be read (Permission denied)" in text and "emove" not in text and "keep it" in text


@pytest.mark.parametrize("error", [MemoryError, pa.ArrowMemoryError, lambda text: OSError(12, text)])
def test_memory_that_runs_out_is_said_and_nothing_is_to_be_removed(copy, monkeypatch, error):
    def exhausted(*arguments, **options):
        raise error("Cannot allocate memory")

    monkeypatch.setattr(pq.ParquetFile, "read", exhausted)
    with pytest.raises(OutOfMemory) as caught:
        load(copy)
    assert "runs.parquet: reading it: out of memory" in str(caught.value) and "keep it" in str(caught.value)
    # without a checksum, a small file that asks for more than there is cannot be told from a damaged one by itself
    (_cohort(copy) / "timing.json").unlink()
    monkeypatch.setattr("alignkit.memory.free_bytes", lambda: 1000)
    with pytest.raises(OutOfMemory):
        load(copy)
    monkeypatch.setattr("alignkit.memory.free_bytes", lambda: 2**40)
    assert "damaged" in message_of(copy)


def test_a_damaged_file_that_asks_for_all_memory_is_damaged(copy, monkeypatch):
    def exhausted(*arguments, **options):
        raise pa.ArrowMemoryError("malloc of size 1 failed")

    file = _cohort(copy) / "runs.parquet"
    file.write_bytes(file.read_bytes() + b" ")
    monkeypatch.setattr(pq, "ParquetFile", exhausted)
    assert "runs.parquet: damaged (malloc" in message_of(copy)


def test_memory_that_runs_out_between_files_is_said(copy, monkeypatch):
    monkeypatch.setattr(pd, "concat", lambda *a, **o: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(OutOfMemory, match="its records: out of memory"):
        load(copy)


@pytest.mark.parametrize("name", ["plan.json", "records/00000000000000aa/layers.parquet"])
def test_a_named_pipe_among_the_records_is_not_waited_for(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    assert f"{copy / name}: expected a file; got a named pipe" in message_of(copy)


def test_records_of_another_origin_are_not_to_be_removed(copy):
    file = _cohort(copy) / "runs.parquet"
    pd.DataFrame({"run_id": ["a"]}).to_parquet(file)
    text = message_of(copy)
    assert f"{file}: expected records that alignkit wrote; got a Parquet file of another origin" in text
    assert "Move the folder" in text and "emove the folder" not in text


def test_no_directory_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecordsError, match="the directory of the records: expected a path; got an empty text"):
        load("")


def test_control_characters_in_old_records_are_written_out(copy):
    study = json.loads((copy / "study.json").read_text())
    (copy / "study.json").write_text(json.dumps({**study, "title": "red \x1b[31m"}))
    assert load(copy).study.title == "red \\x1b[31m"


def test_a_folder_of_records_that_may_not_be_read(copy, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert f"{copy / 'records'}: cannot be read (Permission denied)" in message_of(copy)
    monkeypatch.setattr(Path, "is_dir", refuse)
    assert f"{copy}: cannot be read (Permission denied)" in message_of(copy)


def test_foreign_folders_are_nobodys_business(copy, healthy):
    for name in ("notes", "zz", ".cache", FIRST.upper().replace("0", "G"), FIRST + "0"):
        (copy / "records" / name).mkdir()
        (copy / "records" / name / "runs.parquet").write_text("mine")
    (copy / "records" / "00000000000000cc").write_text("a file")
    assert [folder.name for folder in finished_cohorts(copy)] == list(COHORTS)
    assert csvs(copy) == csvs(healthy)


def test_a_run_that_is_recorded_twice(copy):
    twin = copy / "records" / "00000000000000cc"
    shutil.copytree(_cohort(copy), twin)
    text = message_of(copy)
    assert "run r2 is recorded twice" in text and str(_cohort(copy)) in text and str(twin) in text


def test_no_run_of_the_plan_has_finished(copy):
    plan = plan_of()
    for run in plan["runs"]:
        run["run_id"] = "other " + run["run_id"]
    write_text(copy / "plan.json", json.dumps(plan))
    assert "no run has finished yet" in message_of(copy)
    shutil.rmtree(copy / "records")
    assert "no run has finished yet" in message_of(copy)
    (copy / "records").write_text("a file")
    assert "records: expected a folder; got a file" in message_of(copy)


# The plan and the study


def _changed(**changes):
    return plan_of(runs=[{**plan_of()["runs"][0], **changes}])


PLANS = {
    "not JSON": ('{"for', "plan.json: expected JSON"),
    "not UTF-8": (b"\xff\xfe\xfa", "plan.json: expected JSON"),
    "nested": ("[" * 100_000, "plan.json: expected JSON"),
    "a list": ([], "plan.json: expected a JSON object; got list"),
    "factors are text": (plan_of(factors="norm"), "factors: Input should be a valid list"),
    "a factor twice": (plan_of(factors=["norm", "norm", "width"]), "expected factors with different names"),
    "a factor with a column's name": (plan_of(factors=["norm", "rule"]), "expected factors with different names"),
    "no runs": (plan_of(runs=[]), "runs: List should have at least 1 item"),
    "a run of text": (plan_of(runs=["r0"]), "runs.0: Input should be"),
    "no run id": (plan_of(runs=[{k: v for k, v in plan_of()["runs"][0].items() if k != "run_id"}]), "runs.0.run_id: Field required"),
    "seed of text": (_changed(seed="0"), "runs.0.seed: Input should be a valid integer"),
    "huge seed": (_changed(seed=2**70), "runs.0.seed: "),
    "level missing": (_changed(levels={"norm": "none"}), "run r0: expected levels of ['norm', 'width']; got ['norm']"),
    "level of no factor": (_changed(levels={"norm": 1, "width": 2, "depth": 3}), "run r0: expected levels of"),
    "a list for a level": (_changed(levels={"norm": [1], "width": 2}), "runs.0.levels.norm"),
    "a run twice": (plan_of(runs=[*plan_of()["runs"], plan_of()["runs"][0]]), "expected every run once; got r0 twice"),
}  # fmt: skip


@pytest.mark.parametrize("plan,message", PLANS.values(), ids=PLANS)
def test_bad_plans(copy, plan, message):
    if not isinstance(plan, str | bytes):
        plan = json.dumps(plan)
    (copy / "plan.json").write_bytes(plan if isinstance(plan, bytes) else plan.encode())
    text = message_of(copy)
    assert str(copy / "plan.json") in text and message in text and "it writes this file anew" in text


def test_a_plan_of_another_study(copy, healthy):
    write_text(copy / "plan.json", json.dumps(plan_of(study="small")))
    assert csvs(copy) == csvs(healthy) and read_plan(copy)["study"] == "small"
    write_text(copy / "plan.json", json.dumps(plan_of(study="large")))
    text = message_of(copy)
    assert '"small"' in text and '"large"' in text


@pytest.mark.parametrize(
    "content,message",
    [("[]", "expected a JSON object; got list"), ("{", "expected JSON"), ("{}", "name"), ('{"name": "a b"}', "name")],
)
def test_bad_studies(copy, content, message):
    (copy / "study.json").write_text(content)
    text = message_of(copy)
    assert str(copy / "study.json") in text and message in text and "Restore the file" in text


@pytest.mark.parametrize("name", ["study.json", "plan.json"])
def test_folders_in_the_place_of_files(copy, name):
    _replace_by_a_folder(copy / name)
    assert f"{copy / name}: expected a file; got a folder" in message_of(copy)


def test_a_file_in_the_place_of_the_directory(tmp_path):
    (tmp_path / "file").write_text("")
    assert "no such directory" in message_of(tmp_path / "file")
    assert "no such directory" in message_of(tmp_path / "file" / "below")


# Writing


def test_two_commands_may_finish_the_same_cohort(copy):
    before = snapshot(copy)
    write_cohort(copy, FIRST, tables_of(COHORTS[FIRST]), TIMING)
    write_cohort(copy, FIRST, tables_of(COHORTS[FIRST][:1]), TIMING)
    assert snapshot(copy) == before and not list(copy.glob("records/.*"))


def _foreign(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "notes").write_text("mine")


IN_THE_WAY = {
    "fewer runs": lambda folder: None,
    "a damaged table": lambda folder: (folder / "runs.parquet").write_bytes(b"PAR1"),
    "a foreign folder": _foreign,
    "a file": lambda folder: (shutil.rmtree(folder), folder.write_text("mine")),
}


@pytest.mark.parametrize("put", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_what_is_in_the_way_of_a_cohort_is_not_taken_for_it(copy, put):
    put(_cohort(copy))
    before = snapshot(copy)
    with pytest.raises(RecordsError, match=f"{FIRST}.* is in the way. Move it away and run the same command again"):
        write_cohort(copy, FIRST, tables_of(("r2", "r3", "r4")), TIMING)
    assert snapshot(copy) == before and not list(copy.glob("records/.*"))


def test_an_empty_folder_is_in_nobodys_way(copy, healthy):
    shutil.rmtree(_cohort(copy))
    _cohort(copy).mkdir()
    write_cohort(copy, FIRST, tables_of(COHORTS[FIRST]), TIMING)
    assert csvs(copy) == csvs(healthy)


def test_a_full_disk_leaves_nothing_half_written(copy, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RecordsError, match="00000000000000cc: cannot be written \\(No space left on device\\)"):
        write_cohort(copy, "00000000000000cc", tables_of(("r9",)), TIMING)
    assert [path.name for path in sorted(copy.glob("records/*"))] == list(COHORTS)


def test_only_what_a_killed_writer_left_is_cleared(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    kept = [
        f".{FIRST}.{os.getpid()}",
        ".git",
        ".notes.12",
        f".{FIRST}",
        f".{FIRST}.x",
        f"{FIRST}.{gone.pid}",
        ".1.4194304",
    ]
    cleared = [f".{FIRST}.{gone.pid}", f".{SECOND}.{10**30}"]
    for name in kept + cleared:
        (tmp_path / "records" / name).mkdir(parents=True)
        (tmp_path / "records" / name / "runs.parquet").write_text("")
    clear_unfinished(tmp_path)
    assert {path.name for path in (tmp_path / "records").iterdir()} == set(kept)
    clear_unfinished(tmp_path / "nowhere")


def test_a_text_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "page").mkdir()
    with pytest.raises(RecordsError, match="page: cannot be written \\(Is a directory\\)"):
        write_text(tmp_path / "page", "text")
    (tmp_path / "figures").write_text("mine")
    with pytest.raises(RecordsError, match="figures: cannot be written \\(File exists\\)"):
        write_bytes(tmp_path / "figures" / "a.svg", b"")
    assert {path.name for path in tmp_path.iterdir()} == {"page", "figures"}


def test_a_read_only_place(tmp_path, monkeypatch):
    def refuse(path, content):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(RecordsError, match=r"plan\.json: cannot be written \(Permission denied\)"):
        write_text(tmp_path / "plan.json", "{}")


# The report's files


@pytest.fixture(scope="module")
def small():
    return synthetic_records(designs={"widths": grid({"network.width": [8, 32]})}, seeds=2, steps=(0, 45))


@pytest.fixture(scope="module")
def analysis(small):
    return page.analyse(small)


@pytest.fixture
def light(monkeypatch, analysis):
    """Analysing and drawing take seconds, and it is not what is tested here."""
    monkeypatch.setattr(page, "analyse", lambda records: analysis)
    monkeypatch.setattr(page, "charts", lambda analysis, more: ([], []))


def test_a_report_that_cannot_be_written_says_where(small, light, tmp_path):
    (tmp_path / "tables").write_text("mine")
    with pytest.raises(RecordsError, match="tables: cannot be written"):
        page.write_report(small, tmp_path)
    (tmp_path / "tables").unlink()
    (tmp_path / "index.html").mkdir()
    with pytest.raises(RecordsError, match=r"index\.html: cannot be written \(Is a directory\)"):
        page.write_report(small, tmp_path)


def test_a_report_that_fails_leaves_the_earlier_one(small, light, tmp_path, monkeypatch):
    page.write_report(small, tmp_path)
    before = snapshot(tmp_path)
    monkeypatch.setattr(page, "to_json", lambda found: "changed")
    monkeypatch.setattr(page, "render", lambda *parts: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        page.write_report(small, tmp_path)
    assert snapshot(tmp_path) == before


def test_only_stale_files_of_the_report_are_removed(small, light, tmp_path):
    (tmp_path / "tables" / "effects_mine.csv").mkdir(parents=True)
    (tmp_path / "tables" / "effects_old.csv").write_text("old")
    (tmp_path / "tables" / "notes.csv").write_text("mine")
    page.write_report(small, tmp_path)
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert {"effects_mine.csv", "notes.csv"} <= names and "effects_old.csv" not in names
