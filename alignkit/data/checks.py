"""Whether a source keeps its word: what it says of its dataset, and the samples that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from alignkit.data.source import SPLITS, DatasetShape, Task
from alignkit.errors import DataError


def checked_shape(described: Any, *, what: str) -> DatasetShape:
    """What `shape` returned, if a network can be built for it; `what` names the source in errors."""
    if not isinstance(described, DatasetShape):
        raise DataError(f"{what}: shape: expected a DatasetShape; got {type(described).__name__}")
    if described.task not in get_args(Task):
        raise DataError(f"{what}: shape: expected a task of {', '.join(get_args(Task))}; got {described.task!r}")
    one = described.shape
    if not isinstance(one, tuple) or len(one) not in (1, 3) or not all(map(_counts, one)):
        raise DataError(
            f"{what}: shape: expected the shape of one input, (features,) or (channels, height, width); got {one!r}"
        )
    fewest = {"outputs": 2 if described.task == "classification" else 1, "train": 1, "validation": 0, "test": 1}
    for name, least in fewest.items():
        value = getattr(described, name)
        if not _counts(value, least):
            raise DataError(f"{what}: shape: {name}: expected a whole number of {least} or more; got {value!r}")
    return described


def checked_arrays(read: Any, described: DatasetShape, *, what: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What `read` returned, as float32 inputs and int64 classes or float32 targets, if it is what `shape` said.

    Raises
    ------
    DataError : a split is missing or of another size, a value is not finite, or a target is no class.
    """
    sizes = {split: getattr(described, split) for split in SPLITS if getattr(described, split)}
    if not isinstance(read, Mapping) or read.keys() != sizes.keys():
        got = sorted(read) if isinstance(read, Mapping) else type(read).__name__
        raise DataError(f"{what}: read: expected a dictionary with {', '.join(sizes)}, as shape says; got {got}")
    return {split: _pair(read[split], described, size, f"{what}: read: {split}") for split, size in sizes.items()}


def _pair(pair: Any, described: DatasetShape, size: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(array, np.ndarray) for array in pair):
        raise DataError(f"{what}: expected a pair of NumPy arrays, inputs and targets; got {_kinds(pair)}")
    inputs = _numbers(pair[0], (size, *described.shape), f"{what} inputs")
    if described.task == "regression":
        return inputs, _numbers(pair[1], (size, described.outputs), f"{what} targets")
    return inputs, _classes(pair[1], size, described.outputs, f"{what} targets")


def _numbers(array: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The array as float32, if it has this shape and all of it is finite."""
    if array.shape != shape or array.dtype.kind not in "fiub":
        raise DataError(f"{what}: expected numbers {list(shape)}, as shape says; got {array.dtype} {list(array.shape)}")
    with np.errstate(over="ignore"):  # said below
        numbers = np.require(array, np.float32, ["C", "W"])
    if not (np.isfinite(numbers.min()) and np.isfinite(numbers.max())):
        raise DataError(f"{what}: expected numbers that are finite as float32; got {_first_bad(numbers)}")
    return numbers


def _first_bad(numbers: np.ndarray) -> str:
    place = tuple(map(int, np.argwhere(~np.isfinite(numbers))[0]))
    return f"{numbers[place]} at {list(place)}"


def _classes(array: np.ndarray, size: int, outputs: int, what: str) -> np.ndarray:
    if array.shape != (size,) or array.dtype.kind not in "iu":
        raise DataError(
            f"{what}: expected classes, whole numbers [{size}], as shape says; got {array.dtype} {list(array.shape)}"
        )
    if array.min() < 0 or array.max() >= outputs:
        raise DataError(
            f"{what}: expected classes of 0 to {outputs - 1}, as shape says; got {array.min()} to {array.max()}"
        )
    return np.require(array, np.int64, ["C", "W"])


def _counts(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _kinds(pair: Any) -> str:
    kinds = [type(array).__name__ for array in pair] if isinstance(pair, tuple | list) else [type(pair).__name__]
    return ", ".join(kinds) or "none"
