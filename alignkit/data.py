"""Datasets: digits (embedded), teacher (synthetic, known ground truth), images (a local folder).

Every split's samples come in the order of a fixed permutation, so any first n of them are a random
sample. Nothing here depends on the seed of a run: all runs of a study see the same data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import resources
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from scipy.special import ndtri

from alignkit.errors import DataError
from alignkit.images import ImageFolder, content_hash, find_files, open_folder
from alignkit.settings import Digits, Images, Teacher

Task = Literal["classification", "regression"]
SPLITS = ("train", "validation", "test")

_VERSION = 1  # part of every fingerprint: raise it when the same options give other numbers
_DIGITS_HELD_OUT = 30  # of each class, in validation and in test


@dataclass(frozen=True)
class Split:
    """Samples: `inputs` [n, *shape], `targets` int64 [n] (classes) or float [n, outputs] (regression)."""

    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.inputs)


def gather(split: Split, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The samples of an index [E, N]: inputs [E, N, *shape] and targets [E, N, …]."""
    chosen = index.reshape(-1)
    inputs, targets = split.inputs.index_select(0, chosen), split.targets.index_select(0, chosen)
    return inputs.view(*index.shape, *inputs.shape[1:]), targets.view(*index.shape, *targets.shape[1:])


@dataclass(frozen=True)
class DatasetShape:
    """What is known of a dataset before its samples are: enough to build a network and plan its runs.

    `shape` is that of one input, (features,) or (channels, height, width); `outputs` counts classes or
    regression targets; `train`, `validation` (0: none) and `test` count samples.
    """

    name: str
    task: Task
    shape: tuple[int, ...]
    outputs: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Dataset:
    """Three splits, normalised, and a `fingerprint` that is the same exactly where the numbers are."""

    name: str
    task: Task
    shape: tuple[int, ...]
    outputs: int
    train: Split
    validation: Split | None
    test: Split
    fingerprint: str

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Dataset:
        """The same data on `device`; inputs and regression targets in `dtype`, classes as int64."""
        train, validation, test = (
            split
            and Split(
                split.inputs.to(device, dtype),
                split.targets.to(device, dtype if split.targets.is_floating_point() else None),
            )
            for split in (self.train, self.validation, self.test)
        )
        assert train is not None and test is not None
        return replace(self, train=train, validation=validation, test=test)


def load(section: Digits | Teacher | Images) -> Dataset:
    """The dataset that a study's `[data]` asks for, float32 on the CPU.

    With `shuffle_labels` the targets of the training split are permuted: a control that asks whether
    alignment needs any structure between inputs and labels in what is learned. Class counts stay as they are, and
    so do validation and test, against which nothing can then be learned: their accuracy stays at chance.

    Raises `DataError` where the data are missing, broken or too few.

    >>> from alignkit.settings import Digits
    >>> digits = load(Digits())
    >>> digits.train.inputs.shape, digits.outputs
    (torch.Size([1197, 1, 8, 8]), 10)
    """
    if isinstance(section, Images):
        folder = open_folder(section.path)
        described, arrays = _image_shape(section, folder), _images(section, folder)
    else:
        described, arrays = describe(section), _digits() if isinstance(section, Digits) else _teacher(section)
    if section.shuffle_labels:
        inputs, targets = arrays["train"]
        arrays["train"] = inputs, targets[_permutation(len(targets), "shuffled labels")]
    # cloned: torch aligns what it allocates, NumPy does not (see batched.py)
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
        return _image_shape(section, open_folder(section.path))
    if isinstance(section, Digits):
        train, held_out = 1797 - 2 * 10 * _DIGITS_HELD_OUT, 10 * _DIGITS_HELD_OUT
        return DatasetShape("digits", "classification", (1, 8, 8), 10, train, held_out, held_out)
    if section.task == "classification" and section.outputs < 2:
        raise DataError(
            f"data.outputs: expected at least 2 classes; got {section.outputs}. "
            'Ask for more, or for task = "regression"'
        )
    held_out = section.samples * 15 // 100
    train = section.samples - 2 * held_out
    return DatasetShape("teacher", section.task, (section.inputs,), section.outputs, train, held_out, held_out)


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


Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


# Philox's raw output is the same in every version of numpy; what Generator's methods make of it is not.
def _raw(count: int, stream: str, seed: int = 0) -> np.ndarray:
    """`count` uint64 of a named stream: the first n are the same whatever `count` is."""
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    return np.random.Philox(key=np.array([seed % 2**64, name], np.uint64)).random_raw(count)


def _permutation(count: int, stream: str) -> np.ndarray:
    return np.argsort(_raw(count, stream), kind="stable")


def _gaussian(shape: tuple[int, ...], stream: str, seed: int) -> np.ndarray:
    raw = _raw(int(np.prod(shape)), stream, seed)
    # 52 bits and a half are exact in float64 and never reach 0 or 1.
    return ndtri(((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52).reshape(shape)


def _digits() -> Arrays:
    """30 images of each class test, 30 others validate, the remaining 1,197 train; pixels/16, then
    standardised by the mean and sd of all the training split's pixels."""
    file = resources.files("alignkit") / "datasets" / "digits.npz"
    with file.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
        pixels, labels = stored["images"][:, None], stored["labels"].astype(np.int64)
    order = _permutation(len(labels), "digits split")
    rank = np.empty(len(labels), np.int64)  # of each image within its class
    for digit in range(10):
        members = order[labels[order] == digit]
        rank[members] = np.arange(len(members))
    block = np.minimum(rank // _DIGITS_HELD_OUT, 2)[order]
    rows = {"train": order[block == 2], "validation": order[block == 1], "test": order[block == 0]}
    mean, sd = _channel_moments(pixels, rows["train"], 16)
    table = _lookup(mean, sd, 16)
    return {split: (_normalised(pixels, chosen, table), labels[chosen]) for split, chosen in rows.items()}


@dataclass(frozen=True)
class TeacherFunction:
    """The noise-free teacher, a function of inputs [n, inputs] to standardised outputs float64 [n, outputs].

    h_0 = x; h_k = tanh(h_{k-1} W_k) for the hidden layers; y = (h W_last - mean) / sd. `weights` holds
    W_1 … W_last, each [fan-in, fan-out].
    """

    weights: tuple[np.ndarray, ...]
    mean: np.ndarray
    sd: np.ndarray

    def __call__(self, inputs: np.ndarray | torch.Tensor) -> np.ndarray:
        return (_teacher_outputs(self.weights, np.asarray(inputs, np.float64)) - self.mean) / self.sd


def teacher_function(section: Teacher) -> TeacherFunction:
    """The ground truth behind a teacher dataset: where `noise` is 0, its targets are this function of
    its inputs (regression), or the argmax of it (classification).

    Entries of W_k are N(0, 1/fan-in). Every output is standardised over all of the dataset's samples,
    which keeps the classes of an argmax about even. With `teacher_depth` 0 the teacher is linear.
    """
    return _teacher_parts(section)[1]


def _teacher_parts(section: Teacher) -> tuple[np.ndarray, TeacherFunction]:
    """The inputs, float32 [samples, inputs], and the teacher that is standardised over them."""
    inputs = _gaussian((section.samples, section.inputs), "teacher inputs", section.seed)
    # AR(1) along the features: corr(x_i, x_j) = correlation^|i - j|, every variance 1.
    for column in range(1, section.inputs):
        fresh = np.sqrt(1 - section.correlation**2) * inputs[:, column]
        inputs[:, column] = section.correlation * inputs[:, column - 1] + fresh
    inputs = inputs.astype(np.float32)  # rounded first, so that targets are exact in what is stored
    sizes = [section.inputs, *[section.teacher_width] * section.teacher_depth, section.outputs]
    weights = tuple(
        _gaussian(pair, f"teacher weights {layer}", section.seed) / np.sqrt(pair[0])
        for layer, pair in enumerate(pairwise(sizes))
    )
    outputs = _teacher_outputs(weights, inputs.astype(np.float64))
    return inputs, TeacherFunction(weights, outputs.mean(axis=0), outputs.std(axis=0))


def _teacher_outputs(weights: tuple[np.ndarray, ...], hidden: np.ndarray) -> np.ndarray:
    for weight in weights[:-1]:
        hidden = np.tanh(hidden @ weight)
    return hidden @ weights[-1]


def _teacher(section: Teacher) -> Arrays:
    """Inputs N(0, 1) with corr(x_i, x_j) = correlation^|i - j|; targets are the teacher's standardised
    outputs plus N(0, noise^2), or the argmax of that. Samples are independent: splits are blocks."""
    inputs, teacher = _teacher_parts(section)
    noise = _gaussian((section.samples, section.outputs), "teacher noise", section.seed)
    outputs = teacher(inputs) + section.noise * noise
    targets = outputs.argmax(axis=1) if section.task == "classification" else outputs.astype(np.float32)
    sizes = describe(section)
    ends = np.cumsum([sizes.train, sizes.validation, sizes.test])
    return {
        split: (inputs[end - size : end], targets[end - size : end])
        for split, end, size in zip(SPLITS, ends, (sizes.train, sizes.validation, sizes.test), strict=True)
    }


def _image_rows(section: Images, folder: ImageFolder) -> dict[str, tuple[str, np.ndarray]]:
    """For each split, which of the folder's splits it comes from and the rows that it takes there.

    The validation split is the folder's own or else the last rows of a permutation of the training
    images, so it does not depend on `train_samples`, and smaller training sets are parts of larger ones.
    """
    orders = {split: _permutation(len(labels), f"images {split}") for split, labels in folder.labels.items()}
    train = orders["train"]
    rows = {}
    if "validation" in orders:
        rows["validation"] = ("validation", orders["validation"])
    elif held_out := len(train) // 10 if section.validation is None else section.validation:
        if held_out >= len(train):
            raise DataError(
                f"data.validation: expected fewer than the {len(train)} training images of {section.path}; "
                f"got {held_out}. Ask for fewer, or 0 for none"
            )
        rows["validation"] = ("train", train[-held_out:])
        train = train[:-held_out]
    rows["train"] = ("train", _first(train, section.train_samples, "train"))
    rows["test"] = ("test", _first(orders["test"], section.test_samples, "test"))
    return rows


def _first(rows: np.ndarray, wanted: int | None, split: str) -> np.ndarray:
    if wanted is not None and wanted > len(rows):
        after = " (validation taken out)" if split == "train" else ""
        raise DataError(
            f"data.{split}_samples: expected at most the {len(rows)} images of the {split} split{after}; got {wanted}. "
            "Ask for fewer, or leave the key out to take all"
        )
    return rows[:wanted]


def _image_shape(section: Images, folder: ImageFolder) -> DatasetShape:
    channels = folder.shape[0]
    for key, values in (("mean", section.mean), ("std", section.std)):
        if values is not None and len(values) != channels:
            raise DataError(
                f"data.{key}: expected one number per channel, {channels}; got {len(values)}: {list(values)}. "
                "Mend it, or leave it out to take the training split's own"
            )
    sizes = {"validation": 0} | {split: len(rows) for split, (_, rows) in _image_rows(section, folder).items()}
    return DatasetShape("images", "classification", folder.shape, folder.classes, **sizes)


def _images(section: Images, folder: ImageFolder) -> Arrays:
    """Pixels/255, less the mean, over the sd, per channel; both from the training rows unless given."""
    rows = _image_rows(section, folder)
    pixels = {source: folder.pixels(source) for source in dict.fromkeys(source for source, _ in rows.values())}
    mean, sd = section.mean, section.std
    if mean is None or sd is None:
        own_mean, own_sd = _channel_moments(pixels["train"], rows["train"][1], 255)
        mean, sd = mean or tuple(own_mean), sd or tuple(own_sd)
    table = _lookup(np.array(mean), np.array(sd), 255)
    return {
        split: (_normalised(pixels[source], chosen, table), folder.labels[source][chosen])
        for split, (source, chosen) in rows.items()
    }


def _channel_moments(pixels: np.ndarray, rows: np.ndarray, full: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of each channel over `rows`, from whole-number sums: exact in any order."""
    channels = pixels.shape[1]
    total, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for _, chunk in _chunks(pixels, rows):
        total += chunk.sum(axis=(0, 2, 3), dtype=np.int64)
        squares += np.square(chunk, dtype=np.uint16).sum(axis=(0, 2, 3), dtype=np.int64)
    count = len(rows) * pixels[0, 0].size
    mean = total / count
    sd = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean / full, np.where(sd > 0, sd, full) / full  # a constant channel is centred alone


def _lookup(mean: np.ndarray, sd: np.ndarray, full: int) -> np.ndarray:
    """What each of the values 0 … 255 becomes in each channel, float32 [channels, 256]."""
    return ((np.arange(256) / full - mean[:, None]) / sd[:, None]).astype(np.float32)


def _normalised(pixels: np.ndarray, rows: np.ndarray, table: np.ndarray) -> np.ndarray:
    """float32 [n, channels, height, width], with no other copy of that size."""
    inputs = np.empty((len(rows), *pixels.shape[1:]), np.float32)
    for start, chunk in _chunks(pixels, rows):
        for channel, values in enumerate(table):
            inputs[start : start + len(chunk), channel] = values[chunk[:, channel]]
    return inputs


def _chunks(pixels: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(rows), 1024):
        yield start, pixels[rows[start : start + 1024]]
