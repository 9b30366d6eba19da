"""From the options of a data source to its dataset, by whichever source they name.

Every split's samples come in the order of a fixed permutation, so any first n of them are a random
sample. Nothing here depends on the seed of a run: all runs of a study see the same data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json

import torch

from alignkit.data.checks import checked_arrays, checked_shape
from alignkit.data.dataset import Dataset, Split
from alignkit.data.draws import permutation
from alignkit.data.source import DatasetShape, DataSource
from alignkit.errors import DataError, StudyError
from alignkit.memory import enough_memory
from alignkit.settings.data import SOURCES, DataOptions, UncheckedOptions
from alignkit.settings.modules import code_identity, import_class, own_code
from alignkit.settings.study_options import Settings
from alignkit.settings.validation import validated

_FEWER = "Ask for fewer samples or inputs, or for fewer --workers: each holds the data"
_VERSION = 1  # part of every fingerprint: raise it when the same options give other numbers


def load(options: DataOptions) -> Dataset:
    """The dataset that a study's `[data]` asks for, float32 on the CPU.

    With `shuffle_labels` the targets of the training split are permuted: a control that asks whether
    alignment needs any structure between inputs and labels in what is learned. Class counts stay as they are, and
    so do validation and test, against which nothing can then be learned: their accuracy stays at chance.

    Raises
    ------
    DataError : the data are missing, broken or too few, or a source of the user's own fails.

    Examples
    --------
    >>> from alignkit.settings.data import Digits
    >>> digits = load(Digits())
    >>> digits.train.inputs.shape, digits.outputs
    (torch.Size([1197, 1, 8, 8]), 10)
    """
    options = _checked(options)
    source, described = source_of(options), describe(options)
    with enough_memory("data", _FEWER, needed=working_bytes(options, described)):
        with _speaking_for(options):
            read = source.read(options)
        arrays = checked_arrays(read, described, what=_what(options))
        if options.shuffle_labels:
            inputs, targets = arrays["train"]
            arrays["train"] = inputs, targets[permutation(len(targets), "shuffled labels")]
        # cloned: torch aligns what it allocates, NumPy does not (see numerics/products.py)
        splits = {split: Split(*(torch.from_numpy(array).clone() for array in pair)) for split, pair in arrays.items()}
    return Dataset(
        name=options.name,
        task=described.task,
        shape=described.shape,
        outputs=described.outputs,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
        fingerprint=fingerprint(options),
    )


def describe(options: DataOptions) -> DatasetShape:
    """A dataset's shape and sizes, for little: no teacher set is drawn, no image but one is decoded.

    Raises
    ------
    DataError : the data are missing, too few, or visibly broken.
    """
    options = _checked(options)
    source = source_of(options)
    with _speaking_for(options):
        described = source.shape(options)
    return checked_shape(described, what=_what(options))


def working_bytes(options: DataOptions, described: DatasetShape) -> int:
    """About how much memory making the dataset takes at most."""
    options = _checked(options)
    with _speaking_for(options):
        return source_of(options).working_bytes(options, described)


def notes(options: DataOptions) -> tuple[str, ...]:
    """What is odd about a dataset, though it can be used."""
    options = _checked(options)
    with _speaking_for(options):
        return tuple(source_of(options).notes(options))


def fingerprint(options: DataOptions) -> str:
    """A hash of the data's content and of the options that matter, wherever the files lie.

    Options at their defaults are left out, so that an option added later changes no older hash. Of a source of the
    user's own, the code of its module counts too.

    Raises
    ------
    DataError : files are missing, or a source of the user's own fails.
    """
    options = _checked(options)
    source = source_of(options)
    with _speaking_for(options):
        determined, content = source.determinants(options), source.content(options)
    name = options.name if options.name in SOURCES else code_identity(options.name)
    whole = {"data": name, "version": _VERSION, "options": determined, "content": content}
    try:
        text = json.dumps(whole, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{_what(options)}: content: expected what JSON can hold, as text or numbers; got something else ({error})"
        ) from None
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def source_of(options: DataOptions) -> DataSource:
    """The source that options name.

    Raises
    ------
    StudyError : a source of the user's own cannot be imported, or is none.
    """
    named = import_class(SOURCES.get(options.name, options.name), what=_what(options))
    if not (isinstance(named, type) and issubclass(named, DataSource)) or named.__abstractmethods__:
        raise StudyError(
            f"{_what(options)}: expected a subclass of alignkit.data.source.DataSource that defines shape and read; "
            f"got {named!r}"
        )
    with _speaking_for(options):
        source: DataSource = named()
    return source


def _checked(options: DataOptions) -> DataOptions:
    """Options as records keep them are checked by their source, which fills in its defaults."""
    if not isinstance(options, UncheckedOptions):
        return options
    return validated(Settings, {"data": options.model_dump()}, source="the study of the records").data


def _what(options: DataOptions) -> str:
    return f'data "{options.name}"'


def _speaking_for(options: DataOptions) -> contextlib.AbstractContextManager[None]:
    return own_code(options.name, what=_what(options), error=DataError)
