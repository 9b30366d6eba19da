"""Records on disk: a study directory, one folder per cohort, each written aside and then renamed.

DIR/study.json            the study, defaults left out
DIR/plan.json             what each run is: its rule, cell, seed, factor levels, cohort
DIR/records/<cohort>/     runs.parquet, checkpoints.parquet, layers.parquet, timing.json
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from alignkit.columns import CHECKPOINTS, FORMAT_VERSION, LAYERS, RUNS
from alignkit.errors import RecordsError
from alignkit.study import Study

TABLES = {"runs": RUNS, "checkpoints": CHECKPOINTS, "layers": LAYERS}
_VERSION_KEY = b"alignkit_format"


@dataclass(frozen=True)
class Records:
    """What a study left: three tidy tables (see `columns.py`) and the study itself.

    `missing` counts the planned runs that have no records yet.
    """

    study: Study
    runs: pd.DataFrame
    checkpoints: pd.DataFrame
    layers: pd.DataFrame
    factors: tuple[str, ...]
    missing: int = 0
    timing: pd.DataFrame | None = None


def load(directory: str | Path) -> Records:
    """Read the records below `directory`.

    Rows come in the order of the study's plan, whatever order the runs finished in. Raises
    `RecordsError` where there are none, or where a file is damaged or of another format version.

    >>> records = load("reports/quick")  # doctest: +SKIP
    >>> records.runs.groupby("rule")["test_accuracy"].mean()  # doctest: +SKIP
    """
    directory = Path(directory)
    study = read_study(directory)
    plan = read_plan(directory)
    order = {run["run_id"]: position for position, run in enumerate(plan["runs"])}
    parts: dict[str, list[pd.DataFrame]] = {table: [] for table in TABLES}
    timing = []
    for folder in finished_cohorts(directory):
        for table in TABLES:
            parts[table].append(_read_table(folder / f"{table}.parquet", table))
        timing.append({"cohort": folder.name, **_read_json(folder / "timing.json")})
    if not timing:
        raise RecordsError(
            f"{directory}: no run has finished yet. Run the study first: alignkit run STUDY --out {directory}"
        )
    tables = {}
    for table, frames in parts.items():
        frame = pd.concat(frames, ignore_index=True)
        frame = frame[frame["run_id"].isin(order)]
        keys = [frame["run_id"].map(order), *(frame[key] for key in ("step", "layer") if key in frame)]
        position = np.lexsort([key.to_numpy() for key in reversed(keys)])
        tables[table] = frame.iloc[position].reset_index(drop=True)
    duplicated = tables["runs"]["run_id"].duplicated()
    if duplicated.any():
        run_id = tables["runs"]["run_id"][duplicated].iloc[0]
        raise RecordsError(
            f"{directory}: run {run_id} is recorded twice. Remove one of the cohort folders that hold it "
            f"from {directory / 'records'}"
        )
    runs = _with_plan_columns(tables["runs"], plan, study)
    return Records(
        study=study,
        runs=runs,
        checkpoints=tables["checkpoints"],
        layers=tables["layers"],
        factors=tuple(plan["factors"]),
        missing=len(order) - len(runs),
        timing=pd.DataFrame(timing),
    )


def _with_plan_columns(runs: pd.DataFrame, plan: dict[str, Any], study: Study) -> pd.DataFrame:
    """Add what the plan knows of each run (rule, cell, seed, factors), in the documented order."""
    factors = plan["factors"]
    described = pd.DataFrame(
        [
            {key: run[key] for key in ("run_id", "rule", "cell", "designs", "bp_run_id", "seed")} | run["levels"]
            for run in plan["runs"]
        ]
    )
    described["study"] = study.name
    runs = runs.drop(columns=[name for name in factors if name in runs])  # a rate that is a factor
    merged = runs.merge(described, on="run_id", how="left", validate="one_to_one")
    names = list(RUNS)
    after_seed = names.index("seed") + 1
    kept = [name for name in names[after_seed:] if name not in factors]
    return merged[names[:after_seed] + factors + kept]


def read_study(directory: Path) -> Study:
    path = directory / "study.json"
    if not directory.is_dir():
        raise RecordsError(
            f"{directory}: no such directory. Expected one that `alignkit run STUDY --out {directory}` wrote"
        )
    if not path.exists():
        raise RecordsError(
            f"{directory}: not a records directory (it has no study.json). Expected one that `alignkit run` wrote"
        )
    return Study.parse(_read_json(path), source=str(path))


def read_plan(directory: Path) -> dict[str, Any]:
    plan = _read_json(directory / "plan.json")
    if plan.get("format") != FORMAT_VERSION:
        raise RecordsError(
            f"{directory / 'plan.json'}: expected records of format {FORMAT_VERSION}; got {plan.get('format')!r}. "
            "Read them with the alignkit that wrote them, or run the study again in a new directory"
        )
    return plan


def finished_cohorts(directory: Path) -> list[Path]:
    folder = directory / "records"
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def finished_run_ids(directory: Path) -> set[str]:
    """The runs that have whole records: what resuming skips."""
    found: set[str] = set()
    for folder in finished_cohorts(directory):
        found.update(_read_table(folder / "runs.parquet", "runs")["run_id"])
    return found


def write_cohort(directory: Path, cohort_id: str, tables: dict[str, pd.DataFrame], timing: dict[str, Any]) -> None:
    """Write a cohort's tables aside, then rename: they appear whole or not at all."""
    final = directory / "records" / cohort_id
    aside = directory / "records" / f".{cohort_id}.{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for table in TABLES:
        arrow = pa.Table.from_pandas(tables[table], preserve_index=False)
        metadata = {**(arrow.schema.metadata or {}), _VERSION_KEY: str(FORMAT_VERSION).encode()}
        pq.write_table(arrow.replace_schema_metadata(metadata), aside / f"{table}.parquet", compression="zstd")
    (aside / "timing.json").write_text(json.dumps(timing), encoding="utf-8")
    for file in aside.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    try:
        os.replace(aside, final)
    except OSError:
        if not final.is_dir():
            raise
        shutil.rmtree(aside)  # another command wrote the same cohort meanwhile: the same records


def clear_unfinished(directory: Path) -> None:
    """Remove what killed writers left aside; a folder's name ends in its writer's process id."""
    for entry in (directory / "records").glob(".*"):
        writer = entry.name.rpartition(".")[2]
        if not (writer.isdigit() and _runs(int(writer))):
            shutil.rmtree(entry, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a file aside, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordsError(
            f"{path}: missing. The records beside it cannot be read without it; run the study again into "
            "the same directory"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordsError(
            f"{path}: expected JSON; got: {error}. Restore the file, or run the study again in a new directory"
        ) from None


def _read_table(path: Path, table: str) -> pd.DataFrame:
    mend = f"Remove the folder {path.parent} and run the same command again: only its runs are repeated"
    try:
        arrow = pq.read_table(path)
    except FileNotFoundError:
        raise RecordsError(f"{path}: missing. {mend}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise RecordsError(f"{path}: damaged ({error}). {mend}") from None
    version = (arrow.schema.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version != str(FORMAT_VERSION):
        raise RecordsError(
            f"{path}: expected records of format {FORMAT_VERSION}; got {version}. "
            "Read them with the alignkit that wrote them"
        )
    lacking = [name for name in _stored_columns(table) if name not in arrow.column_names]
    if lacking:
        raise RecordsError(f"{path}: lacks the column {lacking[0]}. {mend}")
    return arrow.to_pandas()


def _stored_columns(table: str) -> list[str]:
    """Columns in the files: those that the plan knows are added on loading."""
    known_from_plan = {"study", "rule", "cell", "designs", "bp_run_id", "seed"}
    return [name for name in TABLES[table] if table != "runs" or name not in known_from_plan]
