"""The main job: from a study to its records, rates tuned first where the study asks for that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from alignkit.data import loading
from alignkit.errors import DataError, StudyError, nearest, quoted
from alignkit.execution import pilot
from alignkit.execution.devices import choose_device, default_workers
from alignkit.execution.notebook import cell_progress, in_notebook
from alignkit.execution.progress import OnStatus
from alignkit.execution.tuning import execute_tuned
from alignkit.execution.workers import execute
from alignkit.paths import given_path
from alignkit.records import store
from alignkit.records.files import write_text
from alignkit.records.store import Records
from alignkit.settings.data import Images
from alignkit.settings.modules import find_modules_beside
from alignkit.settings.validation import plain_values
from alignkit.study.file import load_study
from alignkit.study.plan import expand
from alignkit.study.profiles import with_profile
from alignkit.study.runs import Plan
from alignkit.study.study import Study

OnStage = Callable[[str], OnStatus]
"""Called with the name of a stage that begins; answers with what to call with its progress."""


@dataclasses.dataclass(frozen=True)
class StudySource:
    """A study and where it came from: errors name the file, rates lie beside it.

    A study made in Python lies, under its name, in the current folder.
    """

    study: Study
    path: Path

    @property
    def committed_rates(self) -> Path | None:
        """The file beside the study that its pilot's rates are kept in, if it names one."""
        if self.study.pilot is None or self.study.pilot.rates is None:
            return None
        return self.path.parent / self.study.pilot.rates


def shipped_studies() -> dict[str, Path]:
    """The studies that come with alignkit, by name."""
    here = Path(__file__).parents[1]
    folder = here / "studies" if (here / "studies").is_dir() else here.parent / "studies"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}


def open_study(
    study: str | Path | Study | Mapping[str, Any],
    *,
    data_path: str | None = None,
    profile: str | None = None,
    own_modules: bool = True,
) -> StudySource:
    """A study by the path of its file, by the name of a shipped one, as an object or as nested dicts.

    Parameters
    ----------
    study, data_path, profile : as `run_study` takes them. Modules of the user's own that a study names are looked for
        in its file's folder too, and in the current one where there is no file.
    own_modules : whether modules of the user's own are imported where the study's options are theirs to check.

    Raises
    ------
    StudyError : there is no such study, or it asks for what cannot be.
    """
    if isinstance(study, str | Path):
        path = _path_of(study)
        study = load_study(path, profile=profile, own_modules=own_modules)
    else:
        study = _made(study, profile)
        path = Path(study.name)
    if data_path is not None:
        given_path(data_path, what="--data", error=DataError)
        data = study.data
        if not isinstance(data, Images):
            data = Images(name="images", path=data_path, shuffle_labels=data.shuffle_labels)
        study = study.model_copy(update={"data": data.model_copy(update={"path": data_path})})
    source = StudySource(study, path)
    _require_beside(source)
    return source


def _require_beside(source: StudySource) -> None:
    """The pilot writes its rates: a study of somebody else's must not choose any place for them."""
    rates, folder = source.committed_rates, source.path.parent.resolve()
    if rates is None:
        return
    named = source.study.pilot.rates if source.study.pilot is not None else ""
    try:
        place = rates.resolve()
    except (OSError, RuntimeError, ValueError):
        place = Path("/")
    if not place.is_relative_to(folder) or place in (folder, source.path.resolve()):
        raise StudyError(
            f"{source.path}: pilot.rates: expected a file in the study's own folder; got {quoted(named)}. Write "
            f'"{source.study.name}.rates.json"'
        )


def _path_of(name: str | Path) -> Path:
    path = given_path(name, what="STUDY", error=StudyError)
    if path.is_file() or path.suffix != "" or path.is_absolute():
        return path
    shipped = shipped_studies()
    if path.as_posix() not in shipped:
        raise StudyError(f"{name}: no such file, and no shipped study of that name; {nearest(str(name), shipped)}")
    return shipped[path.as_posix()]


def _made(study: Study | Mapping[str, Any], profile: str | None) -> Study:
    """A study given in Python, in one of its profiles where asked."""
    if not isinstance(study, Study | Mapping):
        raise StudyError(
            f"expected a study: alignkit.Study(...), a dict, the path of a file or the name of a shipped study; got "
            f"{type(study).__name__}. Records are read with load(...), tables judged with compare(...)"
        )
    stated = study.options() if isinstance(study, Study) else study
    label = str(stated.get("name") or "study")
    find_modules_beside(Path("study"), plain_values(stated))  # in the current folder
    if isinstance(study, Study) and profile is None:
        return study
    return Study.parse(stated if profile is None else with_profile(stated, profile, source=label), source=label)


def run_study(
    study: str | Path | Study | Mapping[str, Any] | StudySource,
    out: str | Path,
    *,
    data_path: str | None = None,
    profile: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    on_stage: OnStage | None = None,
) -> Records:
    """Run a study, or go on with one that was stopped, and return its records.

    Parameters
    ----------
    study : a `Study`, a dict of what a study file would say, the path of a file, or the name of a shipped study.
    out : the directory for its records.
    data_path : a local folder of images in the place of the study's data.
    profile : a smaller version of the study that it declares.
    workers : processes; by default one per CPU core, one on a GPU. Results do not depend on it.
    device : "auto", "cpu", "cuda".
    on_stage : is told of progress; by default a notebook shows it below the cell, and nothing does elsewhere.

    Raises
    ------
    AlignkitError : the study asks for what cannot be, its data are at fault, or `out` holds something else.

    Notes
    -----
    An interrupt (Ctrl-C, a notebook's stop button) keeps every run that had finished: `load(out)` reads them, and
    the same call goes on with the rest.

    Examples
    --------
    >>> records = run_study("norms.toml", "reports/norms")
    >>> sorted(records.runs["rule"].unique())
    ['bp', 'dfa']
    """
    source = study if isinstance(study, StudySource) else open_study(study, data_path=data_path, profile=profile)
    out, device = given_path(out, what="out"), choose_device(device)
    workers = default_workers(device) if workers is None else workers
    with _told(on_stage, source.study.name) as begin:
        rates = tuned_rates(source, out, device=device, workers=workers, begin=begin)
        plan = study_plan(source, rates=rates)
        if source.study.tuning is not None:
            execute_tuned(plan, out, device=device, workers=workers, begin=begin)
        else:
            execute(plan, out, device=device, workers=workers, on_status=begin("training"))
    return store.load(out)


def _told(on_stage: OnStage | None, name: str) -> AbstractContextManager[OnStage]:
    if on_stage is None and in_notebook():
        return cell_progress(name)
    return nullcontext(on_stage or (lambda stage: lambda status: None))


def study_plan(
    study: str | Path | Study | Mapping[str, Any] | StudySource, *, rates: dict[str, tuple[float, float]] | None = None
) -> Plan:
    """What a study would run: its cells, its runs and their settings, with tuned `rates` where there are any.

    >>> study_plan("quick")
    Plan('quick': 5,886 runs, 43 cells, 12 seeds and 3 held out, rules bp, dfa and shallow)
    """
    source = study if isinstance(study, StudySource) else open_study(study)
    return expand(source.study, fingerprint=loading.fingerprint, rates=rates, source=str(source.path))


def known_rates(source: StudySource, out: Path | None) -> dict[str, tuple[float, float]] | None:
    """Tuned rates that cover the study: those committed beside it, else those of an earlier pilot in `out`."""
    for place in (source.committed_rates, out / "rates.json" if out is not None else None):
        if place is not None and place.exists():
            outcome = pilot.read_rates(place)
            if pilot.serves(outcome, source.study):
                return pilot.rates_of(outcome)
    return None


def tuned_rates(
    source: StudySource, out: Path, *, device: str, workers: int, begin: OnStage
) -> dict[str, tuple[float, float]] | None:
    """The rates of a study that tunes them, by its pilot where they are not known yet; else None."""
    if source.study.pilot is None:
        return None
    rates = known_rates(source, out)
    if rates is None:
        status, name = begin("tuning rates"), str(source.path)
        outcome = pilot.tune(source.study, out / "pilot", device=device, workers=workers, on_status=status, source=name)
        write_text(out / "rates.json", pilot.rates_text(outcome))
        rates = pilot.rates_of(outcome)
    return rates
