"""Hashes of files, which identify a dataset's content wherever it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path


def content_hash(files: Iterable[Path]) -> str:
    """A hash of the files' bytes, one after the other, whatever their names; computed once a process."""
    whole = hashlib.sha256()
    for file in files:
        status = file.stat()
        whole.update(_digest(file, status.st_size, status.st_mtime_ns))
    return whole.hexdigest()


@lru_cache(maxsize=4096)
def _digest(file: Path, size: int, modified: int) -> bytes:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()
