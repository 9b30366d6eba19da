"""Records on disk: a study directory, one folder per cohort, each written aside and then renamed.

DIR/study.json            the study, defaults left out
DIR/plan.json             what each run is: its rule, cell, designs, seed, factor levels, the BP run it is compared with
DIR/analysis_plan.json    claims, seeds, cells and settings as they were declared, and when they changed
DIR/records/<cohort>/     runs.parquet, checkpoints.parquet, layers.parquet, timing.json (and checksums)
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alignkit.columns import FROM_PLAN, RUNS, Column, show_columns
from alignkit.display import block, head_html, pairs_html, table_html
from alignkit.errors import RecordsError, StudyError, without_control_characters
from alignkit.memory import enough_memory
from alignkit.paths import given_path
from alignkit.records import registration
from alignkit.records.files import (
    TABLES,
    joined,
    read_object,
    read_table,
    sha256,
    to_parquet,
    unreadable,
    writing,
)
from alignkit.records.plan_file import read_plan
from alignkit.records.registration import Registration
from alignkit.settings.rules import WITHOUT_FEEDBACK
from alignkit.study.study import Study
from alignkit.text import count, named, show_rules

_COHORT = re.compile(r"[0-9a-f]{16}")
_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.([0-9]+)")
_TO_STUDY = "Restore the file, or run the study in a new directory"


@dataclass(frozen=True)
class Records:
    """What a study left: three tidy tables (see `columns.py`) and the study itself.

    `missing` counts the planned runs that have no records yet, and `unfinished` has a row for each, with what
    the plan knows of it (run_id, rule, cell, designs, seed, factors). `timing` has a row per cohort, NaN where
    its timing.json is lost. `held_out` holds the same of the seeds that the study holds out, which are in
    no table here; None where there are none. `registration` is the history of the analysis plan; None for
    records that were not read from a directory. `tuning` has the short runs of a grid that only chose the rates of
    these; None where there are none. `memo` keeps what was worked out from these tables once.
    """

    study: Study
    runs: pd.DataFrame
    checkpoints: pd.DataFrame
    layers: pd.DataFrame
    factors: tuple[str, ...]
    missing: int = 0
    unfinished: pd.DataFrame | None = None
    timing: pd.DataFrame | None = None
    held_out: Records | None = None
    registration: Registration | None = None
    tuning: pd.DataFrame | None = None
    memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"Records({_words(self)})"

    def _repr_html_(self) -> str:
        return _html(self)


def _words(records: Records) -> str:
    runs = records.runs
    fed = runs.loc[~runs["rule"].isin(WITHOUT_FEEDBACK), "cell"]
    apart = records.held_out.runs["seed"].nunique() if records.held_out is not None else 0
    diverged = int(runs["diverged"].sum())
    parts = [
        count(len(runs), "run"),
        count((fed if len(fed) else runs["cell"]).nunique(), "cell"),
        count(runs["seed"].nunique(), "seed") + (f" and {apart} held out" if apart else ""),
        named("rule", dict.fromkeys(runs["rule"])),
        *([f"{diverged:,} diverged"] if diverged else []),
        f"{count(records.missing, 'run')} missing" if records.missing else "complete",
    ]
    return f"{records.study.name!r}: {', '.join(parts)}"


def _html(records: Records) -> str:
    """The records at a glance: how each rule did, and what varied."""
    runs = records.runs
    rules = runs.groupby("rule", sort=False).agg(
        runs=("run_id", "size"), diverged=("diverged", "sum"), accuracy=("test_accuracy", "mean")
    )
    rules["accuracy"] *= 100
    varied = {name: ", ".join(map(str, runs[name].dropna().unique())) for name in records.factors}
    tables = [(name, getattr(records, name)) for name in TABLES]
    sizes = [f".{name} ({len(table):,} rows, {len(table.columns)} columns)" for name, table in tables]
    return block(
        head_html("Records", _words(records)),
        table_html(rules.rename(columns={"accuracy": "mean test accuracy (%)"}).reset_index()),
        pairs_html(varied),
        notes=[f"Tables: {', '.join(sizes)}"],
    )


def load(directory: str | Path) -> Records:
    """Read the records below `directory`.

    Rows come in the order of the study's plan, whatever order the runs finished in. Raises
    `RecordsError` where there are none, or where a file is damaged or of another format version.

    >>> records = load("reports/quick")
    >>> records.runs.groupby("rule")["test_accuracy"].mean().index.tolist()
    ['bp', 'dfa']
    """
    if not isinstance(directory, str | os.PathLike):
        raise RecordsError(
            f"expected the directory of the records; got {directory!r}. Give the path that `alignkit run STUDY --out "
            "DIR` wrote to"
        )
    directory = given_path(directory, what="the directory of the records", error=RecordsError)
    keep = (
        "Nothing says that they are damaged: keep them. Close other programs, or read them where there is more memory"
    )
    with enough_memory(f"{directory}: its records", keep):
        return _load(directory)


def _load(directory: Path) -> Records:
    study = read_study(directory)
    plan = read_plan(directory)
    if plan["study"] not in (None, study.name):
        raise RecordsError(
            f'{directory}: expected a plan of the study in study.json, "{study.name}"; got plan.json of the study '
            f'"{plan["study"]}". Restore the one that is not its own'
        )
    show_rules(plan["rules"])
    show_columns(Column(**column) for column in plan["columns"])
    order = {run["run_id"]: position for position, run in enumerate(plan["runs"])}
    holder: dict[str, Path] = {}
    parts: dict[str, list[pd.DataFrame]] = {table: [] for table in TABLES}
    timing = []
    for folder in finished_cohorts(directory):
        frames, seconds = _read_cohort(folder)
        for run_id in frames["runs"]["run_id"]:
            if run_id in order and run_id in holder:
                raise RecordsError(
                    f"{directory}: run {run_id} is recorded twice, in {holder[run_id]} and in {folder}. "
                    "Move one of them away, and run the study again into the same directory for what it alone held"
                )
            holder[run_id] = folder
        for table, frame in frames.items():
            parts[table].append(frame)
        timing.append({"cohort": folder.name, "seconds": float("nan"), **seconds})
    if holder.keys().isdisjoint(order):
        raise RecordsError(
            f"{directory}: no run has finished yet. Run the study first: alignkit run STUDY --out {directory}"
        )
    tables = {}
    for table in TABLES:
        frame = joined(parts[table])
        modes = [_mode_order(frame)] if table == "layers" else []
        place = np.array([order.get(run_id, -1) for run_id in frame["run_id"].tolist()])
        steps, layers = ([frame[key].to_numpy()] if key in frame else [] for key in ("step", "layer"))
        keys = [place, *steps, *modes, *layers]
        position = np.lexsort(keys[::-1])
        tables[table] = frame.iloc[position[place[position] >= 0]].reset_index(drop=True)
    planned = _planned_runs(plan, study)
    tables["runs"] = _with_plan_columns(tables["runs"], planned, plan["factors"])
    tunes = planned.loc[planned["tunes"], "run_id"]
    short = tables["runs"]["run_id"].isin(tunes)
    tuning = tables["runs"][short].reset_index(drop=True) if short.any() else None
    if tuning is not None:
        tables = {name: table[~table["run_id"].isin(tunes)].reset_index(drop=True) for name, table in tables.items()}
    recorded = Records(
        study=study,
        runs=tables["runs"],
        checkpoints=tables["checkpoints"],
        layers=tables["layers"],
        factors=tuple(plan["factors"]),
        timing=pd.DataFrame(timing),
        registration=registration.read(directory),
        tuning=tuning,
    )
    finished = {*recorded.runs["run_id"], *(tuning["run_id"] if tuning is not None else ())}
    unfinished = planned[~planned["run_id"].isin(finished)].drop(columns="tunes")
    judged = _of_seeds(recorded, unfinished, held_out=False)
    if judged.runs.empty:
        raise RecordsError(
            f"{directory}: only runs of held-out seeds have finished yet. Go on with the study: alignkit run STUDY "
            f"--out {directory}"
        )
    held_out = _of_seeds(recorded, unfinished, held_out=True)
    return replace(judged, held_out=held_out if len(held_out.runs) else None)


def _mode_order(layers: pd.DataFrame) -> np.ndarray:
    """Orders the modes of a run as its files do: the study's own comes first."""
    if layers["mode"].nunique(dropna=False) <= 1:
        return np.zeros(len(layers), dtype=np.int64)
    row = pd.Series(np.arange(len(layers)), layers.index)
    return row.groupby([layers["run_id"], layers["mode"]], dropna=False).transform("min").to_numpy()


def _of_seeds(records: Records, unfinished: pd.DataFrame, *, held_out: bool) -> Records:
    """The part of the records whose seeds are held out, or the other one."""
    runs, unfinished = (
        table[table["held_out"] == held_out].reset_index(drop=True) for table in (records.runs, unfinished)
    )
    chosen = set(runs["run_id"])
    checkpoints, layers = (
        table[table["run_id"].isin(chosen)].reset_index(drop=True) for table in (records.checkpoints, records.layers)
    )
    return replace(
        records, runs=runs, checkpoints=checkpoints, layers=layers, missing=len(unfinished), unfinished=unfinished
    )


def whole_table(records: Records, name: str) -> pd.DataFrame:
    """A table of the records with the held-out seeds' rows below the others."""
    parts = [getattr(part, name) for part in (records, records.held_out) if part is not None]
    return pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]


def _planned_runs(plan: dict[str, Any], study: Study) -> pd.DataFrame:
    """What the plan knows of each run: rule, cell, seed, factors."""
    described = pd.DataFrame(
        [
            {key: run[key] for key in ("run_id", "rule", "cell", "designs", "bp_run_id", "seed", "tunes")}
            | {"replicate": run["replicate"] or run["run_id"]}
            | {"bp_replicate": run["bp_replicate"] if run["replicate"] else run["bp_run_id"]}
            | run["levels"]
            for run in plan["runs"]
        ]
    )
    described["study"] = study.name
    described["held_out"] = described["seed"].isin(study.held_out_seeds)
    return described


def _with_plan_columns(runs: pd.DataFrame, planned: pd.DataFrame, factors: list[str]) -> pd.DataFrame:
    """Add what the plan knows of each run, in the documented order; columns that are documented nowhere come last."""
    runs = runs.drop(columns=[name for name in (*factors, *FROM_PLAN) if name in runs])  # a rate that is a factor
    merged = runs.merge(planned.drop(columns="tunes"), on="run_id", how="left", validate="one_to_one")
    names = list(RUNS)
    after_seed = names.index("held_out") + 1
    kept = [name for name in names[after_seed:] if name not in factors]
    others = [name for name in runs if name not in names]
    return merged[names[:after_seed] + factors + kept + others]


def read_study(directory: Path) -> Study:
    path = directory / "study.json"
    try:
        is_folder, has_study = directory.is_dir(), path.exists()
    except OSError as error:
        raise unreadable(directory, error) from None
    if not is_folder:
        raise RecordsError(
            f"{directory}: no such directory. Expected one that `alignkit run STUDY --out {directory}` wrote"
        )
    if not has_study:
        raise RecordsError(
            f"{directory}: not a records directory (it has no study.json). Expected one that `alignkit run` wrote"
        )
    try:
        stated = without_control_characters(read_object(path, _TO_STUDY))
        claims = stated.get("claims")
        for claim in claims if isinstance(claims, list) else ():
            if isinstance(claim, dict):
                claim.setdefault("response", registration.FORMER_RESPONSE)
        return Study.parse(stated, source=str(path), own_modules=False)
    except StudyError as error:
        raise RecordsError(f"{error}. {_TO_STUDY}") from None


def finished_cohorts(directory: Path) -> list[Path]:
    """The folders of whole cohorts. Whatever else lies in records/ is not alignkit's, and is left alone."""
    folder = directory / "records"
    try:
        return sorted(entry for entry in folder.iterdir() if _COHORT.fullmatch(entry.name) and entry.is_dir())
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise RecordsError(f"{folder}: expected a folder; got a file. Move it away") from None
    except OSError as error:
        raise unreadable(folder, error) from None


def finished_run_ids(directory: Path) -> set[str]:
    """The runs that have whole records: what resuming skips."""
    run_ids: set[str] = set()
    for folder in finished_cohorts(directory):
        run_ids.update(_read_table(folder, "runs")["run_id"])
    return run_ids


def finished_runs(directory: Path) -> pd.DataFrame:
    """The rows of `runs` that finished so far, without what the plan knows of them."""
    parts = [_read_table(folder, "runs") for folder in finished_cohorts(directory)]
    return joined(parts).drop_duplicates("run_id", ignore_index=True)


def write_cohort(directory: Path, cohort_id: str, tables: dict[str, pd.DataFrame], timing: dict[str, Any]) -> None:
    """Write a cohort's tables aside, then rename: they appear whole or not at all."""
    final = directory / "records" / cohort_id
    aside = directory / "records" / f".{cohort_id}.{os.getpid()}"
    with writing(final):
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            files = {f"{table}.parquet": to_parquet(tables[table]) for table in TABLES}
            checksums = {table: sha256(files[f"{table}.parquet"]) for table in TABLES}
            files["timing.json"] = json.dumps({**timing, "sha256": checksums}).encode()
            for name, content in files.items():
                with (aside / name).open("wb") as handle:
                    handle.write(content)
                    handle.flush()
                    os.fsync(handle.fileno())
            try:
                os.replace(aside, final)
            except OSError:
                if not final.exists():
                    raise
                if not _holds(final, set(tables["runs"]["run_id"])):
                    raise RecordsError(
                        f"{final}: expected nothing, or the records of the same runs; got something else that is in "
                        "the way. Move it away and run the same command again"
                    ) from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _holds(folder: Path, run_ids: set[str]) -> bool:
    """Whether another command wrote these runs meanwhile: they are the same records."""
    try:
        return run_ids <= set(_read_table(folder, "runs")["run_id"])
    except RecordsError:
        return False


def clear_unfinished(directory: Path) -> None:
    """Remove what killed writers left aside; a folder's name ends in its writer's process id."""
    for entry in (directory / "records").glob(".*"):
        unfinished = _UNFINISHED.fullmatch(entry.name)
        if unfinished and not _runs(int(unfinished[1])):
            shutil.rmtree(entry, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _read_cohort(folder: Path) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """A cohort's tables, which must agree on their runs, and its timing."""
    frames = {table: _read_table(folder, table) for table in TABLES}
    run_ids = set(frames["runs"]["run_id"])
    for table, frame in frames.items():
        if set(frame["run_id"]) != run_ids:
            raise RecordsError(
                f"{folder}: damaged (expected the same runs in {table}.parquet as in runs.parquet; got others). "
                f"{_remove(folder)}"
            )
    frames["layers"] = _with_mode(frames["layers"], frames["checkpoints"])
    return frames, {key: value for key, value in _read_timing(folder).items() if key != "sha256"}


def _with_mode(layers: pd.DataFrame, checkpoints: pd.DataFrame) -> pd.DataFrame:
    """Files of one mode did not name it in `layers`: it is that of the run's checkpoint."""
    absent = layers["mode"].isna()
    if not absent.any():
        return layers
    known = checkpoints.drop_duplicates(["run_id", "step"])[["run_id", "step", "mode"]]
    of_checkpoint = layers[["run_id", "step"]].merge(known, on=["run_id", "step"], how="left")["mode"]
    return layers.assign(mode=layers["mode"].where(~absent, of_checkpoint.set_axis(layers.index)))


def _read_timing(folder: Path) -> dict[str, Any]:
    """How long a cohort took and its tables' checksums: no number depends on them, so they may be lost."""
    try:
        return read_object(folder / "timing.json", "")
    except RecordsError:
        return {}


def _remove(folder: Path) -> str:
    return f"Remove the folder {folder} and run the same command again: only its runs are repeated"


def _read_table(folder: Path, table: str) -> pd.DataFrame:
    checksums = _read_timing(folder).get("sha256")
    known = isinstance(checksums, dict) and checksums.get(table)
    checksum = known if isinstance(known, str) else None
    return read_table(folder / f"{table}.parquet", table, checksum=checksum, mend=_remove(folder))
