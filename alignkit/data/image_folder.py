"""Images in a local folder of Parquet files, in the schema of the Hugging Face hub: labels checked, decoded once.

The folder, or a folder `data` within it, holds `train-*.parquet`, `test-*.parquet` and perhaps
`validation-*.parquet` (or `valid-*`, `val-*`). Each file has a column of `{bytes, path}` structs that
hold encoded images, and a column of integer labels.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from alignkit.data.image_files import KEEP, files_hash, find_files, reading
from alignkit.data.pixel_cache import cache_folder, read_cache, write_cache
from alignkit.errors import DataError
from alignkit.memory import enough_memory, is_shortage, shortage

_LABELS = ("label", "labels", "fine_label")
_IMAGES = ("image", "img")
_GREY = ("1", "L", "LA", "La")
_MOST_NOTES = 5


@dataclass(frozen=True)
class ImageFolder:
    """An opened folder: its labels are read and checked, its images are not decoded yet.

    `files` and `labels` (int64 [n], from 0) go by split: train, test and perhaps validation. `mode` is
    "L" (greyscale) or "RGB", `size` is (height, width): those of the first training image. Where the mode was `chosen`
    colours may be lost in it. `notes` say what is odd about the labels.
    """

    files: dict[str, tuple[Path, ...]]
    labels: dict[str, np.ndarray]
    mode: str
    size: tuple[int, int]
    chosen: bool = False
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1 if self.mode == "L" else 3, *self.size)

    @property
    def classes(self) -> int:
        return 1 + max(int(labels.max()) for labels in self.labels.values())

    def pixels(self, split: str) -> np.ndarray:
        """The split's images, uint8 [n, channels, height, width], in the order of its files.

        They are a read-only memory map of the cache where that can be written, and else an array.

        Raises
        ------
        DataError : an image cannot be decoded or differs in size; names file and row.
        """
        shape = (len(self.labels[split]), *self.shape)
        version = 2 if self.mode == "L" and not self.chosen else 1  # 1 took grey for whatever the first image was
        key = hashlib.sha256(f"{version} {self.mode} {files_hash(self.files[split])}".encode()).hexdigest()[:32]
        cache = cache_folder()
        if cache is None:
            return self._decoded(split, shape)
        path = cache / f"{key}.pixels"
        pixels = read_cache(path, shape)
        if pixels is None:
            pixels = self._decoded(split, shape)
            write_cache(path, pixels)
        return pixels

    def _decoded(self, split: str, shape: tuple[int, ...]) -> np.ndarray:
        with enough_memory(f"{self.files[split][0].parent}: the {split} images", KEEP, needed=math.prod(shape)):
            pixels = np.empty(shape, np.uint8)
        done = 0
        # Pillow releases the interpreter's lock while it decodes.
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for file in self.files[split]:
                for row, encoded in _encoded_batches(file):
                    places = [f"{file}, row {row + offset}" for offset in range(len(encoded))]
                    n = len(encoded)
                    images = pool.map(decode, encoded, places, [self.mode] * n, [self.chosen] * n)
                    for place, image in zip(places, images, strict=True):
                        if image.shape[1:] != self.size:
                            raise DataError(
                                f"{place}: expected every image to have the size of the first training image, "
                                f"{_size(self.size)} (height x width); got {_size(image.shape[1:])}. "
                                "Resize the images to one size and write the files again"
                            )
                        pixels[done] = image
                        done += 1
        return pixels


def open_folder(path: str, colour: Literal["grey", "rgb"] | None = None) -> ImageFolder:
    """Find a folder's splits and read their labels and the first training image.

    Raises
    ------
    DataError : files, splits or columns are missing, a file is damaged, or a label is not a class.
    """
    files = find_files(path)
    labels = {}
    for split, parts in files.items():
        labels[split] = np.concatenate([_labels(file) for file in parts])
        if not len(labels[split]):
            raise DataError(
                f"{parts[0]}: expected at least one row in the {split} split; got none. "
                "Copy the files again from their source"
            )
    first = next((file, encoded[0]) for file in files["train"] for _, encoded in _encoded_batches(file, rows=1))
    image = decode(first[1], f"{first[0]}, row 0", None)
    mode = {"grey": "L", "rgb": "RGB"}[colour] if colour else "L" if len(image) == 1 else "RGB"
    folder = ImageFolder(files, labels, mode, (image.shape[1], image.shape[2]), chosen=colour is not None)
    (only, *others) = np.unique(labels["train"]).tolist()
    if not others:
        raise DataError(
            f"{path}: expected at least two classes; got label {only} in every row of the train split. "
            "Check the label column"
        )
    if folder.classes > max(1000, sum(map(len, labels.values()))):
        raise DataError(
            f"{path}: expected class labels that count from 0; got one as large as {folder.classes - 1}, "
            "larger than the number of images. Check that the label column holds classes, not identifiers"
        )
    return replace(folder, notes=(*_unused_labels(files["train"][0]), *_class_notes(path, labels)))


def _unused_labels(file: Path) -> list[str]:
    """Whether a file has other columns that look like labels."""
    with reading(file):
        schema = pq.read_schema(file)
    name = _label_column(file, schema)
    others = [
        field.name
        for field in schema
        if pa.types.is_integer(field.type) and field.name != name and re.search("label|class", field.name, re.I)
    ]
    if not others:
        return []
    return [f"{file.parent}: labels are taken from the column {name}, none from {', '.join(others)}"]


def _class_notes(path: str, labels: dict[str, np.ndarray]) -> list[str]:
    """Which classes no training image has: networks get an output for each, and nothing teaches it."""
    counts = {split: np.bincount(own, minlength=1 + max(map(max, labels.values()))) for split, own in labels.items()}
    untaught = np.flatnonzero(counts["train"] == 0)
    nowhere = [int(label) for label in untaught if not any(own[label] for own in counts.values())]
    notes = []
    if nowhere:
        from_one = ". Labels that count from 1 leave class 0 empty: subtract 1" if nowhere == [0] else ""
        notes.append(
            f"{path}: no image has {_listed(nowhere)}, and networks have an output for each number up to the largest "
            f"label{from_one}"
        )
    for label in (int(label) for label in untaught if int(label) not in nowhere):
        where = " and ".join(f"{own[label]:,} of {split}" for split, own in counts.items() if own[label])
        notes.append(f"{path}: class {label} has images ({where}), none of them to train on: no network can learn it")
    return notes if len(notes) <= _MOST_NOTES else [*notes[:_MOST_NOTES], f"{path}: and more classes like that"]


def _listed(labels: list[int]) -> str:
    shown = ", ".join(map(str, labels[:5])) + (f", … ({len(labels):,} in all)" if len(labels) > 5 else "")
    return f"label {shown}"


def decode(encoded: bytes | None, place: str, mode: str | None, chosen: bool = False) -> np.ndarray:
    """One encoded image as uint8 [channels, height, width]; without a `mode`, in its own of L and RGB.

    `place` says in the error where the image comes from. An image that has colours loses them only to a mode that was
    `chosen`.
    """
    if encoded is None:
        raise DataError(
            f"{place}: expected an encoded image; got none (a path alone is not enough). Embed the images' bytes"
        )
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"more than 8 bits a channel, mode {image.mode}")
            wanted = mode or ("L" if image.mode in ("1", "L") else "RGB")
            array = np.asarray(image.convert(wanted))
            colours = (
                np.ptp(np.asarray(image.convert("RGB")), axis=2) if wanted == "L" and image.mode not in _GREY else 0
            )
    except Exception as error:  # Pillow's decoders raise many kinds for broken bytes
        if is_shortage(error):
            raise shortage(place, KEEP) from None
        raise DataError(
            f"{place}: expected an encoded image (PNG, JPEG, …); its {len(encoded)} bytes cannot be decoded ({error}). "
            "Copy the file again from its source"
        ) from None
    if not chosen and np.any(colours):
        raise DataError(
            f"{place}: expected greyscale images, as the first training image is one; got one with colours. "
            'Set data.colour = "rgb" to keep the colours of all, or "grey" to drop them'
        )
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _labels(file: Path) -> np.ndarray:
    """The file's labels, int64 [rows], checked."""
    with reading(file), pq.ParquetFile(file) as parquet:
        name = _label_column(file, parquet.schema_arrow)
        _image_column(file, parquet.schema_arrow)
        column = parquet.read(columns=[name]).column(0)
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(f"{file}, row {row}: expected an integer {name}; got none. Label the row, or leave it out")
    given = column.to_numpy()
    if len(given) and given.max() > np.iinfo(np.int64).max:
        row = int(np.argmax(given))
        raise DataError(
            f"{file}, row {row}: expected a {name} that counts classes from 0; got {given[row]}. Check that the column "
            "holds classes, not identifiers"
        )
    labels = given.astype(np.int64)
    if len(labels) and labels.min() < 0:
        row = int(np.flatnonzero(labels < 0)[0])
        raise DataError(
            f"{file}, row {row}: expected a {name} of 0 or more; got {labels[row]}. "
            "Negative labels commonly mark an unlabelled split: use one that has labels"
        )
    return labels


def _label_column(file: Path, schema: pa.Schema) -> str:
    named = [name for name in _LABELS if name in schema.names]
    integers = [field.name for field in schema if pa.types.is_integer(field.type)]
    what, mend = "integer labels, called label", "Name one column label, and leave the others out"
    name = _only(named or integers, file, schema, what=what, mend=mend)
    if name not in integers:
        raise DataError(
            f"{file}: expected integers in the column {name}; got {schema.field(name).type}. "
            "Write the labels as integers that count from 0"
        )
    return name


def _image_column(file: Path, schema: pa.Schema) -> str:
    structs = [field for field in schema if pa.types.is_struct(field.type)]
    binary = (pa.binary(), pa.large_binary())
    images = [
        field.name for field in structs if any(part.name == "bytes" and part.type in binary for part in field.type)
    ]
    named = [name for name in images if name in _IMAGES]
    what = "images, a struct of bytes and path, called image or img"
    return _only(named or images, file, schema, what=what, mend="Write the images in the hub's schema")


def _only(candidates: list[str], file: Path, schema: pa.Schema, *, what: str, mend: str) -> str:
    """The one column that can be meant."""
    if len(candidates) != 1:
        received = f"{len(candidates)} candidates" if candidates else "none"
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema) or "no columns"
        raise DataError(f"{file}: expected one column of {what}; got {received} among {columns}. {mend}")
    return candidates[0]


def _encoded_batches(file: Path, *, rows: int = 1024) -> Iterator[tuple[int, list[bytes | None]]]:
    """The file's encoded images in batches, each with the number of its first row."""
    with reading(file), pq.ParquetFile(file) as parquet:
        name = _image_column(file, parquet.schema_arrow)
        first = 0
        for batch in parquet.iter_batches(batch_size=rows, columns=[f"{name}.bytes"]):
            encoded = [None if struct is None else struct["bytes"] for struct in batch.column(0).to_pylist()]
            if encoded:
                yield first, encoded
            first += len(encoded)


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
