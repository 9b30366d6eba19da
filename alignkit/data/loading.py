"""Datasets: digits (embedded), teacher (synthetic, known ground truth), images (a local folder).

Every split's samples come in the order of a fixed permutation, so any first n of them are a random
sample. Nothing here depends on the seed of a run: all runs of a study see the same data.
"""

from __future__ import annotations

import hashlib
import json

import torch

from alignkit.data.dataset import Dataset, DatasetShape, Split, permutation
from alignkit.data.digits import digits_shape, read_digits
from alignkit.data.image_folder import content_hash, find_files, open_folder
from alignkit.data.images import image_shape, read_images
from alignkit.data.teacher import draw_teacher, teacher_shape
from alignkit.settings.data import Digits, Images, Teacher

_VERSION = 1  # part of every fingerprint: raise it when the same options give other numbers


def load(section: Digits | Teacher | Images) -> Dataset:
    """The dataset that a study's `[data]` asks for, float32 on the CPU.

    With `shuffle_labels` the targets of the training split are permuted: a control that asks whether
    alignment needs any structure between inputs and labels in what is learned. Class counts stay as they are, and
    so do validation and test, against which nothing can then be learned: their accuracy stays at chance.

    Raises `DataError` where the data are missing, broken or too few.

    >>> from alignkit.settings.data import Digits
    >>> digits = load(Digits())
    >>> digits.train.inputs.shape, digits.outputs
    (torch.Size([1197, 1, 8, 8]), 10)
    """
    if isinstance(section, Images):
        folder = open_folder(section.path)
        described, arrays = image_shape(section, folder), read_images(section, folder)
    else:
        described, arrays = describe(section), read_digits() if isinstance(section, Digits) else draw_teacher(section)
    if section.shuffle_labels:
        inputs, targets = arrays["train"]
        arrays["train"] = inputs, targets[permutation(len(targets), "shuffled labels")]
    # cloned: torch aligns what it allocates, NumPy does not (see numerics/products.py)
    splits = {split: Split(*(torch.from_numpy(array).clone() for array in pair)) for split, pair in arrays.items()}
    return Dataset(
        name=described.name,
        task=described.task,
        shape=described.shape,
        outputs=described.outputs,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
        fingerprint=fingerprint(section),
    )


def describe(section: Digits | Teacher | Images) -> DatasetShape:
    """A dataset's shape and sizes, for little: no teacher set is drawn, no image but one is decoded.

    Raises `DataError` where the data are missing, too few, or visibly broken.
    """
    if isinstance(section, Images):
        return image_shape(section, open_folder(section.path))
    return digits_shape() if isinstance(section, Digits) else teacher_shape(section)


def fingerprint(section: Digits | Teacher | Images) -> str:
    """A hash of the data's content and of the options that matter, wherever the files lie.

    Options at their defaults are left out, so that an option added later changes no older hash.
    """
    options = section.model_dump(mode="json", exclude_defaults=True, exclude={"name", "path"})
    content = {}
    if isinstance(section, Images):
        content = {split: content_hash(files) for split, files in find_files(section.path).items()}
        if "validation" in content:
            options.pop("validation", None)
    whole = {"data": section.name, "version": _VERSION, "options": options, "content": content}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]
