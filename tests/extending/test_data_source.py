"""A data source from outside the package: one file beside a study, named there, seen in records and report."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import alignkit
from alignkit.cli.main import main
from alignkit.data.loading import describe, fingerprint, load
from alignkit.errors import DataError, StudyError
from alignkit.execution.run_study import open_study, study_plan
from alignkit.records.store import read_study
from alignkit.report.page import write_report
from alignkit.settings.data import UncheckedOptions
from alignkit.study.file import load_study

MOONS = '''
import numpy as np

from alignkit.data.draws import gaussian, permutation
from alignkit.data.source import DataSource, DatasetShape
from alignkit.settings.data import DataOptions
from alignkit.settings.types import Count, Probability


class TwoMoons(DataSource):
    """Two interleaved half circles, [n, 2], each a class."""

    class Options(DataOptions):
        samples: Count = 200
        noise: Probability = 0.1

    def shape(self, options):
        held_out = options.samples // 4
        return DatasetShape("classification", (2,), 2, options.samples - 2 * held_out, held_out, held_out)

    def read(self, options):
        labels = permutation(options.samples, "moons") % 2
        angle = np.linspace(0, np.pi, options.samples)
        x = np.where(labels == 0, np.cos(angle), 1 - np.cos(angle))
        y = np.where(labels == 0, np.sin(angle), 0.5 - np.sin(angle))
        inputs = np.stack([x, y], axis=1) + options.noise * gaussian((options.samples, 2), "moons noise", seed=0)
        order, sizes = permutation(options.samples, "moons order"), self.shape(options)
        inputs, labels = inputs[order], labels[order]
        test, validation = sizes.test, sizes.test + sizes.validation
        rows = {"test": slice(test), "validation": slice(test, validation), "train": slice(validation, None)}
        return {split: (inputs[chosen], labels[chosen]) for split, chosen in rows.items()}
'''
STUDY = """
name = "moons"
rules = ["bp", "dfa"]
seeds = 2
[data]
name = "{module}:TwoMoons"
{data}
[network]
width = 16
depth = 2
[training]
epochs = 20
lr = 0.3
batch_size = 25
[probe]
samples = 32
log_steps = 1
every_epochs = 0
{more}
"""
NOISES = "[designs.noises.factors]\ndata.noise = [0.1, 0.5]"


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Write a study and, beside it, the module that it names; the answer is the study's path."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def make(module, code=MOONS, *, data="", more="", folder="studies"):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        if code is not None:
            (place / f"{module}.py").write_text(code)
        path = place / "moons.toml"
        path.write_text(STUDY.format(module=module, data=data, more=more))
        return path

    yield make
    for name in [name for name in sys.modules if name.startswith("moons_")]:
        del sys.modules[name]


def call(*arguments, capsys):
    """The exit status of a command, and what it printed on either stream."""
    argv, sys.argv = sys.argv, ["alignkit", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        sys.argv = argv
    printed = capsys.readouterr()
    return stopped.value.code or 0, " ".join((printed.out + printed.err).split())


def test_a_source_of_the_user_s_own_goes_from_the_study_to_the_report(study, tmp_path, capsys, without_pdf):
    path, out = study("moons_whole", more=NOISES), tmp_path / "out"
    code, text = call("validate", path, capsys=capsys)
    assert code == 0 and "valid. 2 cells, 8 runs" in text
    code, text = call("plan", path, "--workers", 1, capsys=capsys)
    assert code == 0 and "2 cells over data_noise" in text
    assert call("run", path, "--out", out, "--workers", 1, capsys=capsys)[0] == 0
    records = alignkit.load(out)
    assert records.runs.groupby("data_noise").size().to_dict() == {0.1: 4, 0.5: 4}
    learned = records.runs[records.runs["rule"] == "bp"].groupby("data_noise")["test_accuracy"].mean()
    assert learned[0.1] > 0.8 and learned[0.1] > learned[0.5]
    assert records.layers["signal_cosine"].notna().all()
    before = {file: file.read_bytes() for file in (out / "records").rglob("*.parquet")}
    assert call("run", path, "--out", out, "--workers", 1, capsys=capsys)[0] == 0  # nothing is left to do
    assert {file: file.read_bytes() for file in (out / "records").rglob("*.parquet")} == before
    page = write_report(records, out).read_text()
    assert "A source of the study&#39;s own, moons_whole:TwoMoons" in page


def test_records_are_read_without_the_module_that_made_them(study, tmp_path, without_pdf):
    path, out = study("moons_gone", data="samples = 140", more=NOISES), tmp_path / "out"
    made = alignkit.run_study(path, out, workers=1)
    before = write_report(made, out).read_bytes()
    (path.parent / "moons_gone.py").unlink()
    sys.path.remove(str(path.parent))
    del sys.modules["moons_gone"]
    with pytest.raises(StudyError, match="cannot be imported"):
        load_study(path.rename(tmp_path / "elsewhere.toml"))
    records = alignkit.load(out)
    assert type(records.study.data) is UncheckedOptions and records.study.data.samples == 140
    assert write_report(records, out).read_bytes() == before
    assert records.registration.changed(records.study) == ""


def test_what_is_stored_of_a_study_is_the_study(study, tmp_path):
    """The registered plan holds options as the module checked them; later they are compared without it."""
    path = study("moons_stored", data="noise = 0.1\nsamples = 160", more="[designs.noises.factors]\ndata.noise = [0]")
    alignkit.run_study(path, tmp_path / "out", workers=1)
    stored = read_study(tmp_path / "out")
    assert stored.data.model_dump() == {"name": "moons_stored:TwoMoons", "shuffle_labels": False, "samples": 160}
    assert stored.to_json() == load_study(path).to_json()
    assert alignkit.load(tmp_path / "out").registration.changed(stored) == ""


def test_options_are_checked_and_have_defaults(study):
    options = load_study(study("moons_options", data="samples = 100")).data
    assert (options.samples, options.noise) == (100, 0.1)
    described, dataset = describe(options), load(options)
    assert (described.train, described.validation, described.test) == (50, 25, 25)
    assert dataset.name == "moons_options:TwoMoons" and dataset.train.inputs.shape == (50, 2)
    shuffled = load(options.model_copy(update={"shuffle_labels": True})).train
    assert (shuffled.inputs == dataset.train.inputs).all() and (shuffled.targets != dataset.train.targets).any()


BAD_OPTIONS = {
    "unknown": (
        "nois = 0.2",
        r'moons\.toml: data\.nois: data has no such key; did you mean "noise"\? \(valid: name, noise',
    ),
    "out of range": ("noise = 1.5", r"moons\.toml: data\.noise: expected less than 1; got 1\.5"),
    "no number": ('samples = "many"', r"moons\.toml: data\.samples: expected a whole number; got 'many'"),
}


@pytest.mark.parametrize("data,message", BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_a_bad_option_is_named(study, data, message):
    with pytest.raises(StudyError, match=message) as caught:
        load_study(study("moons_bad", data=data))
    assert "\n" not in str(caught.value)


def test_a_bad_level_of_a_factor_is_named(study, capsys):
    path = study("moons_level", more="[designs.noises.factors]\ndata.noise = [0, 2]")
    code, text = call("validate", path, capsys=capsys)
    assert code == 2 and "designs.noises: data.noise: expected less than 1; got 2" in text


BAD_MODULES = {
    "missing": (None, "data.name: \"moons_module:TwoMoons\": cannot be imported (ModuleNotFoundError: No module named 'moons_module'). Expected \"module:Class\" of an installed module, or of one beside the study file"),
    "broken": ("import numpy as np\n1 / 0\n", "cannot be imported (ZeroDivisionError: division by zero)"),
    "no python": ("class TwoMoons(:\n", "cannot be imported (SyntaxError"),
    "without the class": ("class ThreeMoons: ...\n", "cannot be imported (AttributeError: module 'moons_module' has no attribute 'TwoMoons')"),
    "no source": ("class TwoMoons: ...\n", "expected a subclass of alignkit.data.source.DataSource"),
    "other options": (MOONS.replace("(DataOptions)", ""), "whose Options are a subclass of alignkit.settings.data.DataOptions"),
    "options alone": (MOONS.replace("(DataSource)", ""), "expected a subclass of alignkit.data.source.DataSource that defines shape and read"),
    "without read": (MOONS.replace("def read", "def reed"), "that defines shape and read"),
    "with arguments": (MOONS.replace("    def shape", "    def __init__(self, path): ...\n    def shape"), 'data "moons_module:TwoMoons": TypeError: '),
    "a check that fails": (MOONS.replace("Options(DataOptions):", "Options(DataOptions):\n        def model_post_init(self, context): self.nothing"), "AttributeError: "),
}  # fmt: skip


@pytest.mark.parametrize("code,message", BAD_MODULES.values(), ids=BAD_MODULES)
def test_a_bad_module_is_one_sentence(study, capsys, code, message):
    status, text = call("validate", study("moons_module", code), capsys=capsys)
    assert status == 2 and message in text and "Traceback" not in text


SHAPE = 'DatasetShape("classification", (2,), 2, options.samples - 2 * held_out, held_out, held_out)'
MISTAKES = {
    "shape fails": ("held_out = options.samples // 4", "held_out = options.sample // 4", r"AttributeError: .*sample.*moons_mistake\.py:18"),
    "no shape": (SHAPE, "(2,)", "shape: expected a DatasetShape; got tuple"),
    "task": (SHAPE, SHAPE.replace("classification", "classify"), "expected a task of classification, regression; got 'classify'"),
    "input": (SHAPE, SHAPE.replace("(2,)", "2"), r"expected the shape of one input, .*; got 2"),
    "one class": (SHAPE, SHAPE.replace("(2,), 2", "(2,), 1"), "outputs: expected a whole number of 2 or more; got 1"),
    "no test": (SHAPE, SHAPE.replace("held_out)", "0)"), "test: expected a whole number of 1 or more; got 0"),
    "read fails": ("angle = ", "np.load('moons_nowhere.npy')\n        angle = ", r"FileNotFoundError: .*moons_nowhere.*moons_mistake\.py:23"),
    "a split too few": ("return {split: (inputs[chosen]", "del rows['test']\n        return {split: (inputs[chosen]", r"read: expected a dictionary with train, validation, test, as shape says; got \['train', 'validation'\]"),
    "no arrays": ("(inputs[chosen], labels[chosen])", "(inputs[chosen], [0])", "expected a pair of NumPy arrays, inputs and targets; got ndarray, list"),
    "other sizes": ("slice(test)", "slice(test - 1)", r"read: test inputs: expected numbers \[50, 2\], as shape says; got float64 \[49, 2\]"),
    "not finite": ("inputs, labels = inputs[order], labels[order]", "inputs[60, 1] = np.nan", r"read: validation inputs: expected numbers that are finite as float32; got nan at \[10, 1\]"),
    "too large": ("inputs, labels = inputs[order], labels[order]", "inputs[3, 0] = 1e39", r"read: test inputs: expected numbers that are finite as float32; got inf at \[3, 0\]"),
    "classes": ("% 2", "% 3", "read: train targets: expected classes of 0 to 1, as shape says; got 0 to 2"),
    "class numbers": ("% 2", "% 2.0", r"targets: expected classes, whole numbers \[100\], as shape says; got float64 \[100\]"),
    "content": ("    def shape", "    def content(self, options): return {'folder': self}\n    def shape", "content: expected what JSON can hold, as text or numbers; got something else"),
}  # fmt: skip


@pytest.mark.parametrize("before,after,message", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_source_is_one_sentence(study, before, after, message):
    assert before in MOONS
    options = load_study(study("moons_mistake", MOONS.replace(before, after))).data
    with pytest.raises(DataError, match=f'^data "moons_mistake:TwoMoons": .*{message}') as caught:
        load(options)
    assert "\n" not in str(caught.value)


def test_regression_targets_are_numbers(study):
    code = MOONS.replace('"classification", (2,), 2', '"regression", (2,), 1')
    options = load_study(study("moons_regression", code)).data
    with pytest.raises(
        DataError, match=r"train targets: expected numbers \[100, 1\], as shape says; got int64 \[100\]"
    ):
        load(options)
    options = load_study(study("moons_numbers", code.replace("labels[chosen]", "labels[chosen, None]"))).data
    assert load(options).train.targets.shape == (100, 1) and load(options).train.targets.is_floating_point()


def test_ids_follow_code_options_and_content(study):
    def first(module, code=MOONS, **options):
        path = study(module, code, folder=f"{module}{len(code)}{len(options)}", **options)
        sys.path.insert(0, str(path.parent))
        for known in [name for name in sys.modules if name == module]:
            del sys.modules[known]
        return study_plan(open_study(path), rates=None).runs[0].run_id

    same = first("moons_ids")
    assert first("moons_ids", data="noise = 0.1") == same
    with_content = MOONS + "\n    def content(self, options):\n        return {'hash': 'a'}\n"
    other = [
        first("moons_ids", data="noise = 0.2"),
        first("moons_ids", MOONS + "\n# another comment, other code\n"),
        first("moons_ids", with_content),
        first("moons_ids", with_content.replace("'a'", "'bb'")),
        first("moons_other"),
    ]
    assert len({same, *other}) == 6


def test_a_hash_of_files_identifies_them_wherever_they_lie(study, tmp_path):
    code = MOONS.replace("samples: Count", "path: str\n        samples: Count") + (
        "\n    def content(self, options):\n        return {'file': content_hash([Path(options.path)])}\n"
        "\n    def determinants(self, options):\n"
        "        return {key: value for key, value in super().determinants(options).items() if key != 'path'}\n"
    )
    code = "from pathlib import Path\nfrom alignkit.data.content import content_hash\n" + code
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    options = load_study(study("moons_files", code, data=f'path = "{tmp_path / "a"}"')).data
    a, b, c = (fingerprint(options.model_copy(update={"path": str(tmp_path / name)})) for name in "abc")
    assert a == b != c
    with pytest.raises(DataError, match=r"FileNotFoundError: .*nowhere"):
        fingerprint(options.model_copy(update={"path": "nowhere"}))


def test_images_take_the_place_of_a_source_of_the_user_s_own(study):
    source = open_study(study("moons_images", data="shuffle_labels = true"), data_path="pictures").study.data
    assert (source.name, source.path, source.shuffle_labels) == ("images", "pictures", True)


def test_a_study_with_a_source_of_the_user_s_own_is_read_without_torch(study):
    path = study("moons_torchless", more=NOISES)
    script = (
        "import sys; from alignkit.study.file import load_study; from alignkit.study.plan import expand\n"
        f"study = load_study({str(path)!r}); plan = expand(study, fingerprint=lambda options: str(options.noise))\n"
        "assert [run.levels['data_noise'] for run in plan.runs[::4]] == [0.1, 0.5], plan\n"
        "assert 'moons_torchless' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_runs_of_an_own_source_travel_to_worker_processes(study):
    runs = study_plan(open_study(study("moons_pickled", more=NOISES)), rates=None).runs
    again = pickle.loads(pickle.dumps(runs))
    assert again == runs and [run.settings.data.noise for run in again[::4]] == [0.1, 0.5]


def test_options_of_records_are_checked_when_samples_are_asked_for(study):
    options = load_study(study("moons_kept", data="samples = 160")).data
    kept = UncheckedOptions.model_validate(json.loads(options.model_dump_json(exclude_defaults=True)))
    assert np.array_equal(load(kept).train.inputs, load(options).train.inputs)
    assert fingerprint(kept) == fingerprint(options)
    with pytest.raises(StudyError, match=r"the study of the records: data\.nois: data has no such key"):
        load(UncheckedOptions.model_validate({**kept.model_dump(), "nois": 1}))


def test_the_source_of_the_readme_is_one(study):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = [block for block in re.findall(r"(?ms)^```python\n(.*?)^```$", text) if "DataSource" in block]
    dataset = load(load_study(study("moons_readme", block, data="noise = 0.0")).data)
    assert dataset.train.inputs.shape == (600, 2) and dataset.train.targets.bincount().tolist() == pytest.approx(
        [300, 300], abs=60
    )
    radius = (dataset.train.inputs - torch.tensor([[0.0, 0.0], [1.0, 0.5]])[dataset.train.targets]).norm(dim=1)
    assert torch.allclose(radius, torch.ones(600), atol=1e-5)
