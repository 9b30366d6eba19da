"""The command line: what it does, and one helpful message with exit status 2 for bad input."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from alignkit.cli.main import main
from alignkit.cli.terminal import planning
from alignkit.records.store import load
from alignkit.report.page import declaration
from alignkit.study.watch import counted

STUDY = """
name = "small"
title = "Small"
seeds = 6
held_out_seeds = [90, 91]
[network]
width = 16
depth = 2
[training]
epochs = 2
[probe]
samples = 64
log_steps = 2
[designs.a.factors]
network.norm = ["none", "batch"]
feedback.normalised = [true, false]
[[claims]]
name = "c"
statement = "Batch norm helps"
factor = "norm"
levels = ["none", "batch"]
direction = "decrease"
smallest_effect = 2
"""


def call(*arguments, capsys=None):
    """Run the command line in this process; its exit status, and what it printed on both streams."""
    argv = sys.argv
    sys.argv = ["alignkit", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        sys.argv = argv
    code = stopped.value.code
    out = capsys.readouterr() if capsys else None
    return (code or 0), out


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "small.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def finished(study, tmp_path_factory):
    """The records of the small study, run in this process with one worker."""
    out = tmp_path_factory.mktemp("out") / "small"
    assert call("run", study, "--out", out, "--workers", 1)[0] == 0
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def csv(directory, table, capsys):
    code, out = call("records", directory, "--table", table, capsys=capsys)
    assert code == 0
    return out.out


def test_records_have_the_documented_columns(finished, capsys, tmp_path):
    from alignkit.columns import CHECKPOINTS, LAYERS, RUNS

    for table, columns in (("runs", RUNS), ("checkpoints", CHECKPOINTS), ("layers", LAYERS)):
        header = csv(finished, table, capsys).splitlines()[0].split(",")
        assert [name for name in header if name not in ("norm", "feedback_normalised")] == list(columns)
        target = tmp_path / f"{table}.parquet"
        assert call("records", finished, "--table", table, "--format", "parquet", "--output", target)[0] == 0
        assert list(pd.read_parquet(target).columns) == header


def test_held_out_seeds_run_and_take_no_part(finished, capsys):
    import alignkit

    records = alignkit.load(finished)
    assert set(records.runs["seed"]) == set(range(6)) and set(records.held_out.runs["seed"]) == {90, 91}
    assert (records.missing, records.held_out.missing) == (0, 0)
    assert len(records.held_out.runs) * 3 == len(records.runs)
    assert set(records.held_out.layers["run_id"]) == set(records.held_out.runs["run_id"])
    written = pd.read_csv(io.StringIO(csv(finished, "runs", capsys)))
    assert written.groupby("held_out")["seed"].nunique().to_dict() == {False: 6, True: 2}
    (verdict,) = alignkit.evaluate(records)
    assert verdict.n_seeds == 6


def test_a_claim_that_changes_after_the_runs_is_said_in_the_report(study, copy, tmp_path, capsys):
    (declared,) = declaration(load(copy))
    assert re.search(
        r"analysis plan \(hash [0-9a-f]{16}\) was stored before the first run and did not change", declared
    )
    changed = tmp_path / "small.toml"
    changed.write_text(STUDY.replace("smallest_effect = 2", "smallest_effect = 0.5"))
    assert call("run", changed, "--out", copy, "--workers", 1)[0] == 0
    capsys.readouterr()
    code, out = call("report", copy, capsys=capsys)
    assert code == 0 and "Claim c was changed when 48 runs had finished: it is judged as exploration" in out.out
    assert "\nc: neither a difference nor its absence within 0.5° can be shown." in out.out
    page = (copy / "index.html").read_text(encoding="utf-8")
    assert re.search(r"torch [0-9.]+\S* on a CPU, one thread a process", page)
    # 8 seeds x 2 norms x (2 DFA cells and the BP run that they share)
    assert "Claim c was changed when 48 runs had finished: it is judged as exploration" in page
    entry = json.loads((copy / "analysis_plan.json").read_text(encoding="utf-8"))["history"][1]
    assert entry["finished_runs"] == 48 and len(entry["hash"]) == 16


def test_two_workers_leave_the_same_bytes_as_one(study, finished, tmp_path, capsys):
    out = tmp_path / "two"
    assert call("run", study, "--out", out, "--workers", 2)[0] == 0
    capsys.readouterr()
    for table in ("runs", "checkpoints", "layers"):
        assert csv(out, table, capsys) == csv(finished, table, capsys)


def test_the_self_test_of_every_record_is_one(finished, capsys):
    import alignkit

    checkpoints = alignkit.load(finished).checkpoints
    assert len(checkpoints) and checkpoints["output_cosine"].sub(1).abs().max() < 1e-9


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_tables(study, finished, tmp_path, capsys):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "alignkit", "run", str(study), "--out", str(out), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(out.glob("records/[!.]*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {path.name for path in out.glob("records/[!.]*")}
    assert before, "no cohort had finished before the kill"
    (out / "records" / ".0123456789abcdef.4194304").mkdir()  # what a writer leaves that is killed while it writes
    assert call("run", study, "--out", out, "--workers", 1)[0] == 0
    capsys.readouterr()
    for table in ("runs", "checkpoints", "layers"):
        assert csv(out, table, capsys) == csv(finished, table, capsys)
    assert not list(out.glob("records/.*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "seconds",
    [pytest.param(0, id="while workers start"), pytest.param(3, id="while they train", marks=pytest.mark.slow)],
)
def test_a_stop_keeps_what_had_finished_and_says_so(tmp_path, seconds, number, status):
    out = tmp_path / "interrupted"
    long = tmp_path / "long.toml"
    long.write_text(
        STUDY.replace("epochs = 2", "epochs = 400").replace(
            "[designs.a.factors]", "[designs.b]\n[designs.a.factors]\nnetwork.depth = [1, 2]"
        )
    )
    command = [sys.executable, "-m", "alignkit", "run", str(long), "--out", str(out), "--workers", "2"]
    # where the tests are a shell's background job, Ctrl-C is ignored, and would be by what they start
    answered = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, answered)
    line = process.stdout.readline()  # the first status: the work has begun
    assert "training" in line
    time.sleep(seconds)
    os.killpg(process.pid, number)  # as a terminal does, or a scheduler
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == status, errors
    assert errors == f"Stopped. What had finished is kept in {out}; the same command goes on from there.\n"


def test_a_single_process_answers_sigterm_as_well(tmp_path):
    long = tmp_path / "long.toml"
    long.write_text(STUDY.replace("epochs = 2", "epochs = 400"))
    command = [sys.executable, "-m", "alignkit", "run", str(long), "--out", str(tmp_path / "out"), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "training" in process.stdout.readline()
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and errors.count("\n") == 1 and "Stopped. What had finished is kept" in errors


def _with_own_rule(directory, module):
    (directory / "foreign_rule.py").write_text(module)
    path = directory / "own.toml"
    path.write_text(STUDY.replace("seeds = 6", 'seeds = 6\nrules = ["bp", "dfa", "foreign_rule:Own"]'))
    return path


@pytest.fixture
def forgotten(monkeypatch):
    """Modules that a test imports from a folder of its own are not there for the next one."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("foreign_rule", None)


@pytest.mark.parametrize("way_out", ["import sys; sys.exit(7)", "raise SystemExit", "raise RuntimeError('no')"])
def test_a_module_cannot_end_validate_without_a_word(tmp_path, capsys, forgotten, way_out):
    code, out = call("validate", _with_own_rule(tmp_path, way_out), capsys=capsys)
    assert code == 2 and 'rule "foreign_rule:Own": cannot be imported (' in out.err


def test_ctrl_c_while_a_module_is_imported_is_no_fault_of_it(tmp_path, capsys, forgotten):
    code, out = call("validate", _with_own_rule(tmp_path, "raise KeyboardInterrupt"), capsys=capsys)
    assert code == 130 and out.err == "Stopped.\n"


def test_a_rule_that_ends_the_process_is_named(tmp_path, capsys, forgotten):
    module = "import sys\nfrom alignkit.rules.dfa import DFA\nclass Own(DFA):\n    def teaching_signal(self, *_, **__):\n        sys.exit(7)\n"
    code, out = call("run", _with_own_rule(tmp_path, module), "--out", tmp_path / "out", "--workers", 1, capsys=capsys)
    assert code == 2 and 'rule "foreign_rule:Own": SystemExit' in out.err


def test_validate_says_what_it_imports_and_need_not(tmp_path, capsys, forgotten):
    module = (
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nfrom alignkit.rules.dfa import DFA as Own\n"
    )
    path = _with_own_rule(tmp_path, module)
    code, out = call("validate", path, "--no-import", capsys=capsys)
    assert code == 0 and "Not imported, so not checked: foreign_rule:Own" in out.out
    assert not (tmp_path / "ran").exists() and "foreign_rule" not in sys.modules
    code, out = call("validate", path, capsys=capsys)
    assert code == 0 and f"Imported foreign_rule:Own from {tmp_path / 'foreign_rule.py'}" in out.out
    assert (tmp_path / "ran").exists()


def test_no_import_imports_nothing_whatever_a_study_names(tmp_path, capsys, forgotten):
    path = _with_own_rule(tmp_path, "raise RuntimeError('imported')")
    named = '[rule]\ndecay = 0.1\n[data]\nname = "foreign_rule:Data"\nsize = 3\n'
    path.write_text(
        path.read_text()
        .replace("[probe]", '[probe]\nmeasures = ["signal", "foreign_rule:Measure"]')
        .replace("width = 16", 'width = 16\nop = "foreign_rule:Op"')
        .replace("[training]", named + "[training]")
    )
    code, out = call("validate", path, "--no-import", capsys=capsys)
    assert code == 0 and "foreign_rule" not in sys.modules, out.err
    assert "valid, as far as that shows without its own modules. 4 cells" in out.out
    assert all(f"foreign_rule:{name}" in out.out for name in ("Own", "Data", "Measure", "Op"))
    path.write_text(path.read_text().replace('["none", "batch"]\nfeedback', '["none", "bath"]\nfeedback'))
    code, out = call("validate", path, "--no-import", capsys=capsys)
    assert code == 2 and "network.norm: expected" in out.err


def test_a_long_plan_says_how_far_it_is(capsys):
    with planning(after=0.0):
        list(counted("Planning cells", range(3)))
    assert capsys.readouterr().err == "".join(f"Planning cells: {done} of 3\n" for done in range(3))


def test_rates_that_are_somebody_else_s_are_not_written_over(tmp_path, capsys):
    path = tmp_path / "own.toml"
    path.write_text(STUDY + '[pilot]\nlr = [0.1]\nseeds = [50]\nrates = "mine.json"')
    (tmp_path / "mine.json").write_text('{"mine": 1}')
    for command in (["pilot", path], ["run", path, "--out", tmp_path / "out"]):
        code, out = call(*command, capsys=capsys)
        assert code == 2 and "mine.json: expected the outcome of a pilot" in out.err and "elete" not in out.err
    assert (tmp_path / "mine.json").read_text() == '{"mine": 1}'


def test_texts_that_spreadsheets_would_run_are_marked(copy, capsys, tmp_path):
    plan = (copy / "plan.json").read_text()
    (copy / "plan.json").write_text(
        plan.replace('"norm": "none"', '"norm": "=1+1"').replace('"norm": "batch"', '"norm": "-2"')
    )
    runs = pd.read_csv(io.StringIO(csv(copy, "runs", capsys)))
    assert set(runs["norm"]) == {"'=1+1", "-2"}
    target = tmp_path / "runs.parquet"
    assert call("records", copy, "--format", "parquet", "--output", target)[0] == 0
    assert set(pd.read_parquet(target)["norm"]) == {"=1+1", "-2"}  # no spreadsheet reads it


def test_memory_that_runs_out_is_said(monkeypatch, capsys):
    monkeypatch.setattr("alignkit.records.store._load", lambda directory: (_ for _ in ()).throw(MemoryError))
    code, out = call("report", "somewhere", capsys=capsys)
    assert code == 2 and "somewhere: its records: out of memory" in out.err
    monkeypatch.setattr("alignkit.records.store.load", lambda directory: (_ for _ in ()).throw(MemoryError))
    code, out = call("report", "somewhere", capsys=capsys)
    assert code == 2 and out.err.startswith("alignkit: out of memory (") and "nothing is damaged" in out.err


def test_odd_labels_are_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("alignkit.data.loading.notes", lambda section: ("class 2 is odd",))
    path = tmp_path / "small.toml"
    path.write_text(STUDY)
    for command in (["validate", path], ["plan", path, "--workers", 1]):
        code, out = call(*command, capsys=capsys)
        assert code == 0 and "class 2 is odd\n" in out.out


def test_validate_and_plan_run_nothing(study, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out = call("validate", study, capsys=capsys)
    assert code == 0 and "4 cells, 48 runs" in out.out.replace("\n", " ")
    code, out = call("plan", study, "--workers", 1, "--cells", capsys=capsys)
    assert code == 0 and "cohorts" in out.out and "feedback_normalised=False" in out.out
    assert not list(tmp_path.iterdir())


def test_too_few_seeds_are_said_before_anything_runs(tmp_path, capsys):
    few = tmp_path / "few.toml"
    few.write_text(STUDY.replace("seeds = 6", "seeds = 5"))
    for command in (["validate", few], ["plan", few, "--workers", 1]):
        code, out = call(*command, capsys=capsys)
        assert code == 0 and "5 seeds: too few for the exact test of one claim, which takes 6" in out.out
    claims = "".join(f'[[claims]]\nname = "c{i}"\n' + STUDY.split('name = "c"\n')[1] for i in range(3))
    few.write_text(STUDY + claims)
    code, out = call("validate", few, capsys=capsys)
    assert code == 0 and "6 seeds: too few for the exact test of a family of 4 hypotheses, which takes 8" in out.out


def test_a_gap_needs_runs_of_bp(tmp_path, capsys):
    path = tmp_path / "gap.toml"
    path.write_text(STUDY.replace("seeds = 6", 'seeds = 6\nrules = ["dfa"]') + 'response = "accuracy_gap"')
    code, out = call("validate", path, capsys=capsys)
    assert code == 2 and 'accuracy_gap is taken from runs of back-propagation. Add "bp" to rules' in out.err


def test_a_study_that_shrank_says_what_it_leaves_behind(study, copy, tmp_path, capsys):
    shrunk = tmp_path / "shrunk.toml"
    shrunk.write_text(STUDY.replace('["none", "batch"]\nfeedback', '["none"]\nfeedback').split("[[claims]]")[0])
    code, out = call("run", shrunk, "--out", copy, "--workers", 1, capsys=capsys)
    assert code == 0 and "24 more runs there are of no cell and seed of the study as it now is" in out.out


def test_a_pilot_that_serves_no_claim_is_refused(study, finished, tmp_path, capsys):
    other = tmp_path / "other.toml"
    text = STUDY.replace("network.norm", "network.activation").replace('"none", "batch"', '"tanh", "relu"')
    other.write_text(text.replace('factor = "norm"', 'factor = "activation"'))
    code, out = call("plan", other, "--from", finished, capsys=capsys)
    assert code == 2 and "expected records that tell the variance of a claim" in out.err and "c: " in out.err


def test_a_study_that_grew_runs_only_what_is_new(study, copy, tmp_path, capsys):
    grown = tmp_path / "grown.toml"
    grown.write_text(STUDY.replace("seeds = 6", "seeds = 7"))
    before = {path: path.stat().st_mtime_ns for path in copy.glob("records/*/runs.parquet")}
    assert len(before) > 1
    assert call("run", grown, "--out", copy, "--workers", 1)[0] == 0
    capsys.readouterr()
    assert len(csv(copy, "runs", capsys).splitlines()) == 1 + 54
    after = {path: path.stat().st_mtime_ns for path in copy.glob("records/*/runs.parquet")}
    assert after.items() > before.items()


def test_a_study_with_a_pilot_tunes_its_rates_first(tmp_path, capsys):
    path = tmp_path / "tuned.toml"
    pilot = '[pilot]\nlr = [0.01, 0.3]\nseeds = [50]\nrates = "tuned.rates.json"\n'
    text = (
        STUDY.replace('name = "small"', 'name = "tuned"')
        .replace("seeds = 6", "seeds = 1")
        .replace("[[claims]]", pilot + "[[claims]]")
    )
    path.write_text(text)
    out = tmp_path / "out"
    assert call("run", path, "--out", out, "--workers", 1)[0] == 0
    stored = json.loads((out / "rates.json").read_text())
    assert len(stored["arms"]) == 2 + 4 and {arm["lr"] for arm in stored["arms"]} <= {0.01, 0.3}
    assert call("pilot", path, "--workers", 1)[0] == 0
    assert (tmp_path / "tuned.rates.json").read_text() == (out / "rates.json").read_text()
    shutil.rmtree(out)
    capsys.readouterr()
    assert call("run", path, "--out", out, "--workers", 1)[0] == 0
    assert not (out / "rates.json").exists() and not (out / "pilot").exists()  # the committed rates serve


def _edit(name, text):
    def edit(study_text, directory):
        path = directory / "bad.toml"
        path.write_text(study_text.replace(*text) if isinstance(text, tuple) else study_text + text)
        return [name, path, *(["--out", directory / "out"] if name == "run" else [])]

    return edit


BAD_STUDIES = {
    "misspelt key": (_edit("validate", ("width = 16", "widht = 16")), 'bad.toml: network.widht: network has no such key; did you mean "width"?'),
    "level out of range": (_edit("validate", ('["none", "batch"]\nfeedback', '["none", "bath"]\nfeedback')), 'designs.a: network.norm: expected "none", "batch" or "layer"; got \'bath\'; did you mean "batch"?'),
    "factor the network lacks": (_edit("validate", ("network.norm = [", "network.kernel = [3, 5]\nnetwork.norm = [")), "designs.a: network.kernel: network has no such key"),
    "claim on no factor": (_edit("validate", ('factor = "norm"', 'factor = "nrom"')), 'claim c: the study has no factor "nrom"; did you mean "norm"?'),
    "claim on no level": (_edit("validate", ('levels = ["none", "batch"]', 'levels = ["none", "layer"]')), "claim c: norm has no level 'layer' there"),
    "claim on no response": (_edit("validate", "response = \"signal_angle\""), 'there is no response "signal_angle"; did you mean "signal_angle_deg"?'),
    "claim on no rule": (_edit("validate", "rule = \"fa\""), 'the study has no rule "fa"'),
    "claim on no layer": (_edit("validate", "layer = 9"), "expected a hidden layer that networks with norm 'none' have, 1 to 2; got layer = 9"),
    "gap of BP itself": (_edit("validate", "response = \"accuracy_gap\"\nrule = \"bp\""), 'expected a rule that accuracy_gap compares with "bp"'),
    "three levels": (_edit("validate", ('levels = ["none", "batch"]', 'levels = ["none", "batch", "layer"]')), "claims.0.levels: expected at most 2 items; got 3: ['none', 'batch', 'layer']"),
    "no such fraction": (_edit("validate", ("[designs.a.factors]", '[designs.a]\nkind = "fraction"\nfraction = "1/3"\n[designs.a.factors]')), 'expected "1/2", "1/4", "1/8" and so on; got "1/3"'),
    "batch larger than the data": (_edit("run", ("epochs = 2", "epochs = 2\nbatch_size = 5000")), "training.batch_size: expected at most the 1197 training samples; got 5000"),
    "probe larger than the split": (_edit("run", ("samples = 64", "samples = 4000")), "probe.samples: expected at most the 300 samples of the test split; got 4000"),
    "no CNN on so small images": (_edit("validate", ("width = 16\ndepth = 2", 'kind = "cnn"')), "network: convolution 3 gets images of 1x1, too small" ),
    "pilot on the study's seeds": (_edit("run", "[pilot]\nlr = [0.1]\nseeds = [0]"), "pilot.seeds: expected seeds that the study itself does not use"),
    "rates outside of the study's folder": (_edit("validate", '[pilot]\nlr = [0.1]\nrates = "../x.json"'), "bad.toml: pilot.rates: expected a file in the study's own folder; got '../x.json'. Write \"small.rates.json\""),
    "rates anywhere": (_edit("pilot", '[pilot]\nlr = [0.1]\nrates = "/tmp/x.json"'), "pilot.rates: expected a file in the study's own folder"),
    "rates over the study": (_edit("pilot", '[pilot]\nlr = [0.1]\nrates = "bad.toml"'), "pilot.rates: expected a file in the study's own folder"),
    "more data than memory": (_edit("validate", '[data]\nname = "teacher"\nsamples = 10_000_000\ninputs = 10_000_000'), "data: they take 3,352,7"),
    "a teacher of endless depth": (_edit("validate", '[data]\nname = "teacher"\nteacher_depth = 10_000_000_000'), "Ask for fewer samples, inputs or outputs, or for a smaller teacher"),
    "more checkpoints than memory": (_edit("validate", ("log_steps = 2", "log_steps = 10_000_000_000")), "probe.log_steps: expected at most 1,000,000; got 10,000,000,000"),
    "more runs than can be planned": (_edit("validate", ("seeds = 6\nheld_out_seeds = [90, 91]", "seeds = 1_000_000")), "expected at most 1,000,000 runs; got 8,000,000"),
    "not TOML": (_edit("validate", "]["), "not valid TOML"),
    "data that are not there": (_edit("validate", '[data]\nname = "images"\npath = "nowhere"'), "nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("make,message", BAD_STUDIES.values(), ids=BAD_STUDIES)
def test_bad_studies(tmp_path, capsys, make, message):
    code, out = call(*make(STUDY, tmp_path), capsys=capsys)
    assert code == 2
    assert message in out.err and "Traceback" not in out.err
    assert not (tmp_path / "out" / "study.json").exists()


BAD_COMMANDS = {
    "no such study": (["run", "qiuck", "--out", "x"], 'qiuck: no such file, and no shipped study of that name; did you mean "quick"?'),
    "no such file": (["validate", "no/where.toml"], "no/where.toml: no such study file"),
    "no such directory": (["report", "nowhere"], "nowhere: no such directory"),
    "no such device": (["run", "quick", "--out", "x", "--device", "cuda:99"], '--device: expected "auto", "cpu" or a CUDA device that exists; got "cuda:99"'),
    "not a device": (["run", "quick", "--out", "x", "--device", "gpu"], 'got "gpu" (not supported). Leave it out'),
    "no such data": (["run", "quick", "--out", "x", "--data", "nowhere"], "nowhere"),
    "no output": (["run", "quick", "--out", ""], "--out: expected a path; got an empty text. Write . for this folder"),
    "no records": (["report", ""], "DIRECTORY: expected a path; got an empty text"),
    "no file": (["records", "x", "--output", ""], "--output: expected a path; got an empty text"),
    "no study": (["validate", ""], "STUDY: expected a path; got an empty text"),
    "no images": (["validate", "quick", "--data", ""], "--data: expected a path; got an empty text"),
    "no pilot's records": (["plan", "quick", "--from", ""], "--from: expected a path; got an empty text"),
    "data of nobody": (["validate", "quick", "--data", "~nosuchuser/x"], "--data: expected a path; got ~nosuchuser/x, and here is no such user"),
    "colours in a name": (["validate", "a\x1b[31mb"], "a\\x1b[31mb: no such file"),
    "zero workers": (["run", "quick", "--out", "x", "--workers", "0"], "--workers"),
    "no such command": (["rnu"], "rnu"),
}  # fmt: skip


@pytest.mark.parametrize("arguments,message", BAD_COMMANDS.values(), ids=BAD_COMMANDS)
def test_bad_commands(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out = call(*arguments, capsys=capsys)
    assert code == 2
    assert message in out.err and "Traceback" not in out.err
    assert not list(tmp_path.iterdir())


def _cohort(directory):
    return min(directory.glob("records/*"))


def _truncate(directory):
    file = _cohort(directory) / "layers.parquet"
    file.write_bytes(file.read_bytes()[:200])


def _other_version(directory):
    import pyarrow.parquet as pq

    file = _cohort(directory) / "runs.parquet"
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"alignkit_format": b"99"}), file)


def _lose_a_column(directory):
    import pyarrow.parquet as pq

    file = _cohort(directory) / "runs.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["test_loss"]), file)


DAMAGE = {
    "truncated table": (_truncate, "layers.parquet: damaged"),
    "lost table": (lambda d: (_cohort(d) / "checkpoints.parquet").unlink(), "checkpoints.parquet: missing"),
    "other format": (_other_version, "runs.parquet: expected records of format 1; got 99"),
    "lost column": (_lose_a_column, "runs.parquet: damaged (its checksum"),
    "lost study": (lambda d: (d / "study.json").unlink(), "not a records directory (it has no study.json)"),
    "torn plan": (lambda d: (d / "plan.json").write_text('{"for'), "plan.json: expected JSON"),
    "old plan": (lambda d: (d / "plan.json").write_text('{"format": 0}'), "expected records of format 1; got 0"),
    "twice": (lambda d: shutil.copytree(_cohort(d), d / "records" / ("0" * 16)), "is recorded twice"),
    "empty": (lambda d: shutil.rmtree(d / "records"), "no run has finished yet"),
}  # fmt: skip


@pytest.mark.parametrize("damage,message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_records(copy, capsys, damage, message):
    damage(copy)
    for command in (["report", copy], ["records", copy]):
        code, out = call(*command, capsys=capsys)
        assert code == 2
        assert message in out.err and "Traceback" not in out.err


def test_removing_a_damaged_cohort_repeats_only_that_one(study, copy, finished, capsys):
    _truncate(copy)
    code, out = call("run", study, "--out", copy, "--workers", 1, capsys=capsys)
    assert code == 2 and "Remove the folder" in out.err
    shutil.rmtree(_cohort(copy))
    assert call("run", study, "--out", copy, "--workers", 1)[0] == 0
    capsys.readouterr()
    assert csv(copy, "layers", capsys) == csv(finished, "layers", capsys)


def test_a_damaged_cohort_of_a_study_that_grew_is_repeated(study, copy, tmp_path, capsys):
    grown = tmp_path / "grown.toml"
    grown.write_text(STUDY.replace("seeds = 6", "seeds = 8"))
    assert call("run", grown, "--out", copy, "--workers", 1)[0] == 0
    capsys.readouterr()
    whole = csv(copy, "runs", capsys)
    shutil.rmtree(_cohort(copy))
    assert call("run", grown, "--out", copy, "--workers", 1)[0] == 0
    capsys.readouterr()
    assert csv(copy, "runs", capsys) == whole


@pytest.mark.slow
def test_brackets_in_texts_are_no_markup(study, tmp_path, capsys):
    marked = tmp_path / "marked.toml"
    marked.write_text(
        STUDY.replace("Batch norm helps", "[/x] helps")
        .replace('"Small"', '"a [/foo]"')
        .replace("seeds = 6", "seeds = 1")
    )
    assert call("run", marked, "--out", tmp_path / "out", "--workers", 1)[0] == 0
    code, out = call("report", tmp_path / "out", capsys=capsys)
    assert code == 0 and "[/x] helps" in out.out


def test_a_rule_that_cannot_be_imported_is_refused_before_anything_runs(study, tmp_path, capsys):
    path = tmp_path / "rule.toml"
    path.write_text(STUDY.replace("seeds = 6", 'seeds = 6\nrules = ["bp", "dfa", "nowhere:Rule"]'))
    for command in (["validate", path], ["run", path, "--out", tmp_path / "out"]):
        code, out = call(*command, capsys=capsys)
        assert code == 2 and 'rule.toml: rule "nowhere:Rule": cannot be imported' in out.err
    assert not (tmp_path / "out").exists()


def test_a_network_beyond_the_machine_s_memory_is_refused(tmp_path, capsys):
    path = tmp_path / "large.toml"
    path.write_text(STUDY.replace("width = 16", "width = 9000000"))
    code, out = call("validate", path, capsys=capsys)
    assert code == 2 and "GiB of memory and this machine has" in out.err


def test_records_of_another_study_are_not_touched(study, copy, tmp_path, capsys):
    other = tmp_path / "other.toml"
    other.write_text(STUDY.replace('name = "small"', 'name = "other"'))
    code, out = call("run", other, "--out", copy, "--workers", 1, capsys=capsys)
    assert code == 2 and 'holds the records of the study "small"; got the study "other"' in out.err


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["--table", "run"], 'no table is called "run"; did you mean "runs"?'),
        (["--format", "xlsx"], "expected csv or parquet"),
        (["--format", "parquet"], "Name a file with --output"),
        (
            ["--output", "no/such/folder/x.csv"],
            "x.csv: cannot be written (Cannot save file into a non-existent directory",
        ),
    ],
)
def test_bad_requests_for_records(finished, capsys, arguments, message):
    code, out = call("records", finished, *arguments, capsys=capsys)
    assert code == 2 and message in out.err


def test_reading_and_analysing_import_no_torch():
    code = (
        "import sys, alignkit; alignkit.load, alignkit.evaluate, alignkit.contrasts, alignkit.write_report, alignkit.Study;"
        "assert 'torch' not in sys.modules, 'torch'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
