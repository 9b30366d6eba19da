"""Single files of records: written whole or not at all, read with errors that say how to mend them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from alignkit.columns import CHECKPOINTS, FORMAT_VERSION, FROM_PLAN, LAYERS, RUNS
from alignkit.errors import RecordsError
from alignkit.memory import enough_memory, is_shortage, may_need, shortage
from alignkit.paths import kind_of

TABLES = {"runs": RUNS, "checkpoints": CHECKPOINTS, "layers": LAYERS}
KEYS = frozenset({"run_id", "step", "layer"})
"""Columns that say which row is which: a table that has one has it in every row."""
_VERSION_KEY = b"alignkit_format"


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text, as UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file aside, then rename it into place."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        try:
            aside.write_bytes(content)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing `path` into a `RecordsError`."""
    try:
        yield
    except OSError as error:
        raise RecordsError(
            f"{path}: cannot be written ({error.strerror or error}). Mend that and run the same command again"
        ) from None


def unreadable(path: Path, error: OSError) -> RecordsError:
    return RecordsError(
        f"{path}: cannot be read ({error.strerror or error}). Check its permissions and its disk: "
        "it may well be whole, so keep it"
    )


def read_bytes(path: Path, mend: str) -> bytes:
    try:
        if (kind := kind_of(path)) not in ("a file", "nothing"):
            raise RecordsError(f"{path}: expected a file; got {kind}. {mend}")
        with enough_memory(f"{path}: reading it", KEEP):
            return path.read_bytes()
    except FileNotFoundError:
        raise RecordsError(f"{path}: missing. {mend}") from None
    except OSError as error:
        raise unreadable(path, error) from None


KEEP = "It may well be whole: keep it. Close other programs, or read it where there is more memory"


def read_object(path: Path, mend: str) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        value = json.loads(read_bytes(path, mend))
    except (ValueError, RecursionError) as error:
        raise RecordsError(f"{path}: expected JSON; got: {error}. {mend}") from None
    if not isinstance(value, dict):
        raise RecordsError(f"{path}: expected a JSON object; got {type(value).__name__}. {mend}")
    return value


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def to_parquet(frame: pd.DataFrame) -> bytes:
    """A table as the bytes of a Parquet file, with the format version in its metadata."""
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = {**(arrow.schema.metadata or {}), _VERSION_KEY: str(FORMAT_VERSION).encode()}
    sink = pa.BufferOutputStream()
    pq.write_table(arrow.replace_schema_metadata(metadata), sink, compression="zstd", write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_table(path: Path, table: str, *, checksum: str | None, mend: str) -> pd.DataFrame:
    """The table of this name in a Parquet file, checked: its bytes, its keys, and the types of the columns it has.

    A documented column that the file lacks is missing in every row. A column that is documented nowhere comes last.
    `mend` says what to do with a damaged file. A whole one is never called damaged for the columns that it has.
    """
    content = read_bytes(path, mend)
    try:
        arrow = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read(use_threads=False)
        arrow.validate(full=True)
    except Exception as error:  # whatever a damaged file may bring forth in the decoder
        whole = checksum == sha256(content) if checksum is not None else may_need(len(content))
        if is_shortage(error) and whole:
            raise shortage(f"{path}: reading it", KEEP, needed=len(content)) from None
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RecordsError(f"{path}: damaged ({reason}). {mend}") from None
    version = (arrow.schema.metadata or {}).get(_VERSION_KEY, b"none").decode(errors="replace")
    if version == "none":
        raise RecordsError(
            f"{path}: expected records that alignkit wrote; got a Parquet file of another origin. Move the folder "
            f"{path.parent} away and run the study again: only its runs are repeated"
        )
    if version != str(FORMAT_VERSION):
        raise RecordsError(
            f"{path}: expected records of format {FORMAT_VERSION}; got {version}. "
            "Read them with the alignkit that wrote them"
        )
    if checksum is not None and checksum != sha256(content):
        raise RecordsError(f"{path}: damaged (its checksum is not that of timing.json). {mend}")
    if not arrow.num_rows:
        raise RecordsError(f"{path}: damaged (expected at least one row; got none). {mend}")
    twice = sorted({name for name in arrow.column_names if arrow.column_names.count(name) > 1})
    if twice:
        raise RecordsError(f"{path}: expected columns of different names; got {', '.join(twice)} twice. {_keep(path)}")
    known = _stored_columns(table)
    for name, kind in known.items():
        if name not in arrow.column_names:
            if name in KEYS:
                raise RecordsError(f"{path}: lacks the column {name}, by which its rows are told apart. {_keep(path)}")
            arrow = arrow.append_column(name, pa.nulls(arrow.num_rows, _EMPTY[kind]))
        column = arrow.column(name)
        if not _FITS[kind](column.type) or (column.null_count and name in KEYS):
            gaps = f" with {column.null_count} gaps" if column.null_count else ""
            raise RecordsError(f"{path}: column {name}: expected {kind}; got {column.type}{gaps}. {_keep(path)}")
    others = [name for name in arrow.column_names if name not in known]
    return _to_pandas(arrow.select([*known, *others]), known)


def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several files of one table; a column that some of them lack is missing in their rows."""
    names = dict.fromkeys(str(name) for part in parts for name in part)
    kinds = {name: next(part[name].dtype for part in parts if name in part) for name in names}
    return pd.concat([_widened(part, kinds) for part in parts], ignore_index=True)


def _widened(part: pd.DataFrame, kinds: Mapping[str, Any]) -> pd.DataFrame:
    absent = {name: _missing(kind, part.index) for name, kind in kinds.items() if name not in part}
    return part.assign(**absent)[list(kinds)] if absent else part


def _missing(kind: Any, rows: pd.Index) -> pd.Series:
    """A column of nothing, of a type that holds both values of this kind and none."""
    if pd.api.types.is_bool_dtype(kind):
        return pd.Series(pd.NA, rows, dtype="boolean")
    return pd.Series(pd.NA, rows, dtype="Int64") if pd.api.types.is_integer_dtype(kind) else pd.Series(None, rows, kind)


def _to_pandas(arrow: pa.Table, known: Mapping[str, str]) -> pd.DataFrame:
    """Whole numbers and truth values stay what they are where some are missing."""
    frame: pd.DataFrame = arrow.replace_schema_metadata().to_pandas()  # pandas reads its own part even to ignore it
    for name in arrow.column_names:
        column = arrow.column(name)
        if pa.types.is_integer(column.type) and (column.null_count or known.get(name) == "Int64"):
            nullable = pd.UInt64Dtype() if pa.types.is_uint64(column.type) and name not in known else pd.Int64Dtype()
            # by way of floats, 2**53 + 1 is lost
            frame[name] = column.to_pandas(types_mapper=lambda _, nullable=nullable: nullable)
        elif pa.types.is_boolean(column.type) and column.null_count:
            frame[name] = column.to_pandas(types_mapper=lambda _: pd.BooleanDtype())
    return frame


def _keep(path: Path) -> str:
    return (
        f"Its records may be good, so keep them: read them with the alignkit that wrote them. To repeat their runs "
        f"with this one, move the folder {path.parent} away and run the same command again"
    )


_FITS = {
    "string": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "float64": pa.types.is_floating,
    "int64": pa.types.is_integer,
    "Int64": pa.types.is_integer,
    "bool": pa.types.is_boolean,
}
_EMPTY = {
    "string": pa.string(), "float64": pa.float64(), "int64": pa.int64(), "Int64": pa.int64(), "bool": pa.bool_(),
}  # fmt: skip


def _stored_columns(table: str) -> dict[str, str]:
    """Columns in the files, and their types: those that the plan knows are added on loading."""
    return {name: kind for name, (kind, _) in TABLES[table].items() if table != "runs" or name not in FROM_PLAN}
