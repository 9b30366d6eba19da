"""The Parquet files of an image folder: which there are, whether they are whole, and what identifies them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from alignkit.data.content import content_hash
from alignkit.errors import DataError
from alignkit.memory import is_shortage, may_need, shortage
from alignkit.paths import given_path, kind_of

_FILE = re.compile(r"(train|test|validation|valid|val)(?:-(\d+)-of-(\d+))?(?:-.*)?\.parquet")
_EXPECTED = "a folder with train-*.parquet and test-*.parquet, as the Hugging Face hub lays them out"
KEEP = "The files may well be whole: keep them. Close other programs, or read them where there is more memory"


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
        raise DataError(
            f"{root}: no Parquet file that is named for its split. Expected {_EXPECTED}; {_what_is_there(root)}"
        )
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
        with reading(file):
            content_hash((file,))
    return content_hash(files)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn what can go wrong with a file into an error that says what to do."""
    try:
        yield
    except PermissionError:
        raise DataError(f"{file}: expected a readable file; permission was denied. Change its permissions") from None
    except (pa.ArrowException, OSError, MemoryError) as error:
        if is_shortage(error) and file.is_file() and may_need(file.stat().st_size):
            raise shortage(f"{file}: reading it", KEEP, needed=file.stat().st_size) from None
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
    with reading(folder):
        return sorted(folder.iterdir())


def _what_is_there(root: Path) -> str:
    nested = sorted(root.glob("*/train*.parquet"))
    if nested:
        return f"{nested[0].parent} has such files. Give that folder"
    names = [entry.name for entry in _listing(root)]
    if not names:
        return "got an empty folder. Copy the files into it"
    return f"got {', '.join(names[:4])}{', …' if len(names) > 4 else ''}. Rename the files, or give another folder"
