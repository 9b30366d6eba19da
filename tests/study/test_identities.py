"""Ids of runs and fingerprints of data, as they were when the first records were made: they never change."""

from __future__ import annotations

import hashlib

import pytest

from alignkit.data import loading
from alignkit.execution.run_study import open_study
from alignkit.settings.data import Digits, Images, Teacher
from alignkit.study.plan import expand

IDS = {  # of every run under seed 0, without tuned rates
    "dose_response": "163cf4e707109add",
    "quick": "273607d13a539936",
    "launay2019/as_published_fc": "f5f2d6b3aac57b29",
    "launay2019/convolutions": "9d4f7951983f3236",
}


@pytest.fixture
def folder(tmp_path):
    """A folder that looks like one of images: a fingerprint opens none of them."""
    for split in ("train", "test"):
        (tmp_path / f"{split}.parquet").write_bytes(split.encode())
    return tmp_path


@pytest.mark.parametrize("name", IDS)
def test_ids_of_shipped_studies_stay(name, folder):
    study = open_study(name, data_path=str(folder) if name.startswith("launay2019") else None).study
    runs = expand(study, fingerprint=loading.fingerprint, seeds=(0,)).runs
    ids = "".join(run.run_id for run in runs)
    assert hashlib.blake2b(ids.encode(), digest_size=8).hexdigest() == IDS[name]


FINGERPRINTS = {
    "25d4c5ed1963d64094daca1af03349b8": (Digits, {}),
    "99cfe990f62dcfd9b7f67300b0f02a4f": (Digits, {"shuffle_labels": True}),
    "fbaf469a7b2208c5272d52e64bdb8860": (Teacher, {}),
    "3f3a407fa2025ae6206ee845ccbcd312": (
        Teacher,
        {"samples": 300, "task": "regression", "noise": 0.5, "shuffle_labels": True},
    ),
    "2448a3ba4a31687d8704c3262486c0a2": (Images, {}),
    "86549df46120690993b1149f33e1466e": (Images, {"validation": 2, "train_samples": 3, "mean": (0.5,), "std": (1.0,)}),
}


@pytest.mark.parametrize("expected", FINGERPRINTS)
def test_fingerprints_stay(expected, folder):
    section, options = FINGERPRINTS[expected]
    where = {"path": str(folder)} if section is Images else {}
    assert loading.fingerprint(section(name=section.__name__.lower(), **where, **options)) == expected


def test_a_validation_split_of_the_folder_leaves_no_choice(folder):
    (folder / "validation.parquet").write_bytes(b"validation")
    found = {loading.fingerprint(Images(name="images", path=str(folder), validation=wanted)) for wanted in (None, 2, 3)}
    assert found == {"6a9787e3e3ef1c56700152bc1f49145c"}
