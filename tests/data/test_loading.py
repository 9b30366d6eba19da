import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from alignkit.data.dataset import Dataset
from alignkit.data.loading import describe, fingerprint, load
from alignkit.data.teacher import teacher_parts
from alignkit.errors import DataError
from alignkit.settings.data import Digits, Teacher

SECTIONS = [
    Digits(),
    Teacher(name="teacher", samples=203, inputs=6, outputs=4, correlation=0.5),
    Teacher(name="teacher", task="regression", samples=100, inputs=5, outputs=1, teacher_depth=2, noise=0.1),
]


def rows(inputs: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in inputs}


def test_digits_are_scikit_learns():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    original = datasets.load_digits()
    digits = load(Digits())
    parts = [digits.train, digits.validation, digits.test]
    inputs = torch.cat([part.inputs for part in parts]).double().flatten(1)
    targets = torch.cat([part.targets for part in parts])
    low, high = inputs.min(), inputs.max()  # standardised zeros and sixteens
    pixels = ((inputs - low) / (high - low) * 16).numpy()
    assert np.abs(pixels - pixels.round()).max() < 1e-5
    ours = sorted(zip(pixels.round().astype(int).tolist(), targets.tolist(), strict=True))
    theirs = sorted(zip(original.data.astype(int).tolist(), original.target.tolist(), strict=True))
    assert ours == theirs


def test_digits_split_is_stratified_and_disjoint():
    digits = load(Digits())
    assert [len(digits.train), len(digits.validation), len(digits.test)] == [1197, 300, 300]
    assert (
        torch.bincount(digits.test.targets).tolist() == torch.bincount(digits.validation.targets).tolist() == [30] * 10
    )
    assert torch.bincount(digits.train.targets).min() >= 114
    seen = [rows(part.inputs) for part in (digits.train, digits.validation, digits.test)]
    assert len(set.union(*seen)) == sum(map(len, seen)) == 1797  # no digit occurs twice in the source
    # Any first samples are a random sample: every class is among the first hundred.
    assert len(digits.train.targets[:100].unique()) == 10


def test_digits_are_standardised_by_the_training_split():
    train = load(Digits()).train.inputs.double()
    assert abs(train.mean()) < 1e-6
    assert abs(train.std(correction=0) - 1) < 1e-6


def test_the_digits_split_never_changes():
    digits = load(Digits())
    assert digits.train.targets[:12].tolist() == [9, 6, 6, 9, 2, 9, 6, 9, 5, 2, 9, 2]
    assert fingerprint(Digits()) == "25d4c5ed1963d64094daca1af03349b8"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_description_is_what_loading_gives(section):
    described, loaded = describe(section), load(section)
    assert (section.name, described.task, described.outputs) == (loaded.name, loaded.task, loaded.outputs)
    for split, size in [("train", described.train), ("validation", described.validation), ("test", described.test)]:
        part = getattr(loaded, split)
        assert part.inputs.shape == (size, *described.shape)
        assert len(part) == len(part.targets) == size
        assert part.inputs.dtype == torch.float32
        assert part.targets.dtype == (torch.int64 if loaded.task == "classification" else torch.float32)
    assert loaded.fingerprint == fingerprint(section)


def test_to_converts_inputs_and_regression_targets_but_not_classes():
    classes, numbers = (load(section).to("cpu", torch.float64) for section in SECTIONS[1:])
    assert isinstance(classes, Dataset)
    assert classes.test.inputs.dtype == numbers.test.targets.dtype == torch.float64
    assert classes.train.targets.dtype == torch.int64
    assert classes.fingerprint == load(SECTIONS[1]).fingerprint


def test_loading_leaves_the_global_generators_alone():
    np.random.seed(3)
    torch.manual_seed(3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    for section in SECTIONS:
        load(section.model_copy(update={"shuffle_labels": True}))
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_shuffled_labels_keep_their_counts_and_spare_held_out_data(section):
    plain, shuffled = load(section), load(section.model_copy(update={"shuffle_labels": True}))
    assert torch.equal(plain.train.inputs, shuffled.train.inputs)
    assert not torch.equal(plain.train.targets, shuffled.train.targets)
    assert torch.equal(plain.train.targets.sort(dim=0).values, shuffled.train.targets.sort(dim=0).values)
    for split in ("validation", "test"):
        assert torch.equal(getattr(plain, split).targets, getattr(shuffled, split).targets)
    assert plain.fingerprint != shuffled.fingerprint


def test_shuffled_digits_carry_no_more_than_chance():
    plain, shuffled = load(Digits()), load(Digits(shuffle_labels=True))
    assert (plain.train.targets == shuffled.train.targets).double().mean() < 0.14


def test_fingerprints_tell_options_apart_and_ignore_defaults():
    changes = [{"seed": 1}, {"noise": 0.5}, {"samples": 300}, {"task": "regression"}, {"shuffle_labels": True}]
    sections = [Digits(), Digits(shuffle_labels=True), Teacher(name="teacher")]
    sections += [Teacher.model_validate({"name": "teacher", **change}) for change in changes]
    assert len({fingerprint(section) for section in sections}) == len(sections)
    assert fingerprint(Teacher(name="teacher", seed=0, samples=2000)) == fingerprint(Teacher(name="teacher"))


def test_the_teacher_never_changes():
    train = load(Teacher(name="teacher", correlation=0.5)).train
    assert train.inputs[0, :4].tolist() == pytest.approx([-1.522648, -0.198116, 0.39574, 0.124061], abs=1e-6)
    assert train.targets[:12].tolist() == [4, 1, 2, 3, 4, 2, 2, 4, 2, 1, 2, 3]


def test_teacher_is_a_function_of_its_seed():
    first, again = load(SECTIONS[1]), load(SECTIONS[1])
    other = load(SECTIONS[1].model_copy(update={"seed": 1}))
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.test.targets, again.test.targets)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    load(SECTIONS[1].model_copy(update={"seed": -5}))


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_teacher_inputs_have_the_correlation_that_was_asked_for(correlation):
    loaded = load(Teacher(name="teacher", samples=20000, inputs=7, correlation=correlation))
    found = np.corrcoef(loaded.train.inputs.double().numpy(), rowvar=False)
    distance = np.abs(np.subtract.outer(np.arange(7), np.arange(7)))
    assert np.abs(found - correlation**distance).max() < 0.03
    assert np.abs(loaded.train.inputs.std(dim=0).numpy() - 1).max() < 0.03
    assert np.abs(loaded.train.inputs.mean(dim=0).numpy()).max() < 0.03


def test_teacher_targets_are_the_teacher_where_there_is_no_noise():
    for task in ("classification", "regression"):
        section = Teacher(name="teacher", task=task, samples=300, inputs=8, outputs=3, teacher_depth=2, correlation=0.6)
        loaded, truth = load(section), teacher_parts(section)[1]
        for part in (loaded.train, loaded.validation, loaded.test):
            outputs = truth(part.inputs)
            if task == "regression":
                assert np.abs(outputs - part.targets.numpy()).max() < 1e-6
            else:
                assert (outputs.argmax(axis=1) == part.targets.numpy()).all()


def test_linear_regression_recovers_a_linear_teacher():
    section = Teacher(
        name="teacher", task="regression", samples=500, inputs=6, outputs=2, teacher_depth=0, correlation=0.4
    )
    train, truth = load(section).train, teacher_parts(section)[1]
    design = np.column_stack([train.inputs.double().numpy(), np.ones(len(train))])
    found = np.linalg.lstsq(design, train.targets.double().numpy(), rcond=None)[0]
    assert np.abs(found[:-1] - truth.weights[0] / truth.sd).max() < 1e-6
    assert np.abs(found[-1] + truth.mean / truth.sd).max() < 1e-6


def test_teacher_outputs_are_standardised_and_noise_has_its_sd():
    quiet = Teacher(name="teacher", task="regression", samples=4000, noise=0.0)
    noisy = quiet.model_copy(update={"noise": 0.5})
    parts = [(d.train, d.validation, d.test) for d in map(load, (quiet, noisy))]
    targets = [torch.cat([part.targets for part in own]).double() for own in parts]
    assert targets[0].mean(dim=0).abs().max() < 1e-6
    assert (targets[0].std(dim=0, correction=0) - 1).abs().max() < 1e-6
    assert abs((targets[1] - targets[0]).std() - 0.5) < 0.02


def test_teacher_classes_are_about_even():
    counts = torch.bincount(load(Teacher(name="teacher", outputs=4)).train.targets, minlength=4)
    assert counts.min() > 0.5 * counts.sum() / 4


def test_one_class_is_refused():
    with pytest.raises(DataError, match=r'at least 2 classes; got 1\. .*"regression"'):
        load(Teacher(name="teacher", outputs=1))


def test_data_are_the_same_in_another_process():
    code = (
        "import json; from alignkit.data.loading import load; from alignkit.settings.data import Teacher\n"
        "d = load(Teacher(name='teacher', samples=40, correlation=0.3))\n"
        "print(json.dumps([d.fingerprint, d.train.inputs.flatten().tolist(), d.train.targets.tolist()]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    here = load(Teacher(name="teacher", samples=40, correlation=0.3))
    expected = [here.fingerprint, here.train.inputs.flatten().tolist(), here.train.targets.tolist()]
    assert json.loads(output.stdout) == expected


def test_a_loaded_dataset_is_frozen():
    with pytest.raises(AttributeError):
        copy.copy(load(Digits())).name = "other"
