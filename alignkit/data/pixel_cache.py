"""Decoded pixels on disk, so that a folder of images is decoded once."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from pathlib import Path

import numpy as np

_DIGEST_BYTES = hashlib.sha256().digest_size


def cache_folder() -> Path | None:
    chosen = os.environ.get("ALIGNKIT_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "alignkit"
    except RuntimeError:  # no home folder is known
        return None


def read_cache(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
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


def write_cache(path: Path, pixels: np.ndarray) -> None:
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
