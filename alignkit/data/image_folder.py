"""Images in a local folder of Parquet files, in the schema of the Hugging Face hub: found, checked,
decoded once and kept in a cache.

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
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from alignkit.data.content import content_hash
from alignkit.errors import DataError
from alignkit.memory import enough_memory, is_shortage, may_need, shortage
from alignkit.paths import given_path, kind_of

_FILE = re.compile(r"(train|test|validation|valid|val)(?:-(\d+)-of-(\d+))?(?:-.*)?\.parquet")
_EXPECTED = "a folder with train-*.parquet and test-*.parquet, as the Hugging Face hub lays them out"
_LABELS = ("label", "labels", "fine_label")
_IMAGES = ("image", "img")
_DIGEST_BYTES = hashlib.sha256().digest_size
_GREY = ("1", "L", "LA", "La")
_MOST_NOTES = 5
_FEWER = "The files may well be whole: keep them. Close other programs, or read them where there is more memory"


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
        cache = _cache_folder()
        if cache is None:
            return self._decoded(split, shape)
        path = cache / f"{key}.pixels"
        pixels = _read_cache(path, shape)
        if pixels is None:
            pixels = self._decoded(split, shape)
            _write_cache(path, pixels)
        return pixels

    def _decoded(self, split: str, shape: tuple[int, ...]) -> np.ndarray:
        with enough_memory(f"{self.files[split][0].parent}: the {split} images", _FEWER, needed=math.prod(shape)):
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
    with _reading(file):
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


def find_files(path: str) -> dict[str, tuple[Path, ...]]:
    """The Parquet files of each split below `path`, in the order of their names; nothing is opened."""
    root = given_path(path, what="data.path", error=DataError)
    if root.is_file():
        raise DataError(f"{root}: expected {_EXPECTED}; got a file. Give the folder that holds it: {root.parent}")
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder. Expected {_EXPECTED}. Mend data.path in the study, or give --data PATH"
        )
    for folder in (root, root / "data"):
        matches = [(file, match) for file in _listing(folder) if (match := _FILE.fullmatch(file.name))]
        if matches:
            break
    else:
        raise DataError(f"{root}: no Parquet file that is named for its split. Expected {_EXPECTED}; {_found(root)}")
    files, shards = defaultdict(list), defaultdict(list)
    for file, match in matches:
        if (kind := kind_of(file)) not in ("a file", "nothing"):
            raise DataError(
                f"{file}: expected a Parquet file; got {kind} of that name. "
                + ("Move the files in it up, named train-*.parquet and so on" if kind == "a folder" else "Copy a file")
            )
        split = "validation" if match[1].startswith("val") else match[1]
        files[split].append(file)
        if match[2]:
            shards[split, int(match[3])].append(int(match[2]))
    for (split, total), present in shards.items():
        if sorted(present) != list(range(total)):
            missing = sorted(set(range(total)) - set(present))
            raise DataError(
                f"{folder}: expected each of the {total} files {split}-*-of-{total:05d}.parquet once; "
                + f"got {len(present)} files, "
                + (f"without number {missing[0]:05d}. " if missing else "some numbers twice. ")
                + "Copy the folder again from its source"
            )
    for split in ("train", "test"):
        if split not in files:
            raise DataError(
                f"{folder}: no {split} split. Expected {_EXPECTED}; "
                f"got {', '.join(f'{name}-*' for name in sorted(files))}. "
                f"Add {split}-*.parquet, or rename the files that hold it"
            )
    return {split: tuple(parts) for split, parts in files.items()}


def files_hash(files: tuple[Path, ...]) -> str:
    """`content_hash` of a split's files.

    Raises
    ------
    DataError : a file cannot be read.
    """
    for file in files:
        with _reading(file):
            content_hash((file,))
    return content_hash(files)


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
            raise shortage(place, _FEWER) from None
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
    with _reading(file), pq.ParquetFile(file) as parquet:
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
    found = named or integers
    if len(found) != 1:
        received = f"{len(found)} candidates" if found else "none"
        raise DataError(
            f"{file}: expected one column of integer labels, called label; got {received} "
            f"among {_columns(schema)}. Name one column label, and leave the others out"
        )
    if found[0] not in integers:
        raise DataError(
            f"{file}: expected integers in the column {found[0]}; got {schema.field(found[0]).type}. "
            "Write the labels as integers that count from 0"
        )
    return found[0]


def _image_column(file: Path, schema: pa.Schema) -> str:
    structs = [field for field in schema if pa.types.is_struct(field.type)]
    binary = (pa.binary(), pa.large_binary())
    images = [
        field.name for field in structs if any(part.name == "bytes" and part.type in binary for part in field.type)
    ]
    found = [name for name in images if name in _IMAGES] or images
    if len(found) != 1:
        received = f"{len(found)} candidates" if found else "none"
        raise DataError(
            f"{file}: expected one column of images, a struct of bytes and path, called image or img; got {received} "
            f"among {_columns(schema)}. Write the images in the hub's schema"
        )
    return found[0]


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "no columns"


def _encoded_batches(file: Path, *, rows: int = 1024) -> Iterator[tuple[int, list[bytes | None]]]:
    """The file's encoded images in batches, each with the number of its first row."""
    with _reading(file), pq.ParquetFile(file) as parquet:
        name = _image_column(file, parquet.schema_arrow)
        first = 0
        for batch in parquet.iter_batches(batch_size=rows, columns=[f"{name}.bytes"]):
            encoded = [None if struct is None else struct["bytes"] for struct in batch.column(0).to_pylist()]
            if encoded:
                yield first, encoded
            first += len(encoded)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn what can go wrong with a file into an error that says what to do."""
    try:
        yield
    except PermissionError:
        raise DataError(f"{file}: expected a readable file; permission was denied. Change its permissions") from None
    except (pa.ArrowException, OSError, MemoryError) as error:
        if is_shortage(error) and file.is_file() and may_need(file.stat().st_size):
            raise shortage(f"{file}: reading it", _FEWER, needed=file.stat().st_size) from None
        if not file.exists():
            raise DataError(
                f"{file}: a link to a file that is missing, or removed meanwhile. Copy the files themselves"
            ) from None
        with file.open("rb") as handle:
            start = handle.read(64)
        if start.startswith(b"version https://git-lfs"):
            raise DataError(
                f"{file}: expected a Parquet file; got a Git-LFS pointer to one. Run `git lfs pull` where it was cloned"
            ) from None
        reason = str(error).rstrip(".")
        raise DataError(
            f"{file}: expected a whole Parquet file; its {file.stat().st_size} bytes are damaged or half-copied "
            f"({reason}). Copy it again from its source"
        ) from None


def _listing(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with _reading(folder):
        return sorted(folder.iterdir())


def _found(root: Path) -> str:
    nested = sorted(root.glob("*/train*.parquet"))
    if nested:
        return f"{nested[0].parent} has such files. Give that folder"
    names = [entry.name for entry in _listing(root)]
    if not names:
        return "got an empty folder. Copy the files into it"
    return f"got {', '.join(names[:4])}{', …' if len(names) > 4 else ''}. Rename the files, or give another folder"


def _size(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _cache_folder() -> Path | None:
    chosen = os.environ.get("ALIGNKIT_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "alignkit"
    except RuntimeError:  # no home folder is known
        return None


def _read_cache(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The pixels at `path`, or None where there is no whole file of this shape: pixels, then their hash."""
    size = math.prod(shape)
    try:
        with path.open("rb") as handle:
            if os.fstat(handle.fileno()).st_size != size + _DIGEST_BYTES:
                return None
            pixels = np.memmap(handle, np.uint8, mode="r", shape=shape)
            handle.seek(size)
            digest = handle.read()
    except OSError:
        return None
    return pixels if hashlib.sha256(pixels.data).digest() == digest else None


def _write_cache(path: Path, pixels: np.ndarray) -> None:
    """Write aside, then rename: a reader sees a whole file or none. Going on without is no error."""
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as handle:
            aside = handle.name
            handle.write(pixels.data)
            handle.write(hashlib.sha256(pixels.data).digest())
        os.replace(aside, path)
    except OSError:
        if aside:
            Path(aside).unlink(missing_ok=True)
