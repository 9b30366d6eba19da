"""The main job: from a study to its records, rates tuned first where the study asks for that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from alignkit.data import loading
from alignkit.errors import StudyError, nearest
from alignkit.execution import pilot
from alignkit.execution.devices import choose_device, default_workers
from alignkit.execution.progress import OnStatus
from alignkit.execution.workers import execute
from alignkit.records import store
from alignkit.records.files import write_text
from alignkit.records.store import Records
from alignkit.settings.data import Images
from alignkit.study.file import load_study
from alignkit.study.plan import expand
from alignkit.study.runs import Plan
from alignkit.study.study import Study

OnStage = Callable[[str], OnStatus]
"""Called with the name of a stage that begins; answers with what to call with its progress."""


@dataclasses.dataclass(frozen=True)
class StudySource:
    """A study and where it came from: errors name the file, rates lie beside it."""

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


def open_study(name: str | Path, *, data_path: str | None = None, profile: str | None = None) -> StudySource:
    """A study by the path of its file or by the name of a shipped one.

    Parameters
    ----------
    name : path of a study file, or the name of a shipped study. Modules of the user's own that the study names are
        looked for in the file's folder too.
    data_path : a local folder of images in the place of the study's data.
    profile : a smaller version of the study that its file declares.

    Raises
    ------
    StudyError : there is no such study, or it asks for what cannot be.
    """
    path = Path(name)
    if not path.is_file() and path.suffix == "" and not path.is_absolute():
        shipped = shipped_studies()
        if path.as_posix() not in shipped:
            raise StudyError(f"{name}: no such file, and no shipped study of that name; {nearest(str(name), shipped)}")
        path = shipped[path.as_posix()]
    study = load_study(path, profile=profile)
    if data_path is not None:
        known = (
            study.data
            if isinstance(study.data, Images)
            else Images(name="images", path=data_path, shuffle_labels=study.data.shuffle_labels)
        )
        study = study.model_copy(update={"data": known.model_copy(update={"path": data_path})})
    return StudySource(study, path)


def run_study(
    study: str | Path | StudySource,
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
    study : path of a study file, or the name of a shipped study.
    out : the directory for its records.
    data_path : a local folder of images in the place of the study's data.
    profile : a smaller version of the study that its file declares.
    workers : processes; by default one per CPU core, one on a GPU. Results do not depend on it.
    device : "auto", "cpu", "cuda".
    on_stage : called with the name of each stage; answers with what to call with its progress.

    Raises
    ------
    AlignkitError : the study asks for what cannot be, its data are at fault, or `out` holds something else.

    Examples
    --------
    >>> records = run_study("quick", "reports/quick")  # doctest: +SKIP
    """
    source = study if isinstance(study, StudySource) else open_study(study, data_path=data_path, profile=profile)
    out, device = Path(out), choose_device(device)
    workers = default_workers(device) if workers is None else workers
    begin = on_stage or (lambda stage: lambda status: None)
    rates = tuned_rates(source, out, device=device, workers=workers, begin=begin)
    plan = study_plan(source, rates=rates)
    execute(plan, out, device=device, workers=workers, on_status=begin("training"))
    return store.load(out)


def study_plan(source: StudySource, *, rates: dict[str, tuple[float, float]] | None) -> Plan:
    """The runs of a study at its tuned rates; None where it tunes none, or to plan it untuned."""
    return expand(source.study, fingerprint=loading.fingerprint, rates=rates, source=str(source.path))


def known_rates(source: StudySource, out: Path | None) -> dict[str, tuple[float, float]] | None:
    """Tuned rates that cover the study: those committed beside it, else those of an earlier pilot in `out`."""
    places = [source.committed_rates, out / "rates.json" if out is not None else None]
    for place in places:
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
        outcome = pilot.tune(
            source.study,
            out / "pilot",
            device=device,
            workers=workers,
            on_status=begin("tuning rates"),
            source=str(source.path),
        )
        write_text(out / "rates.json", pilot.rates_text(outcome))
        rates = pilot.rates_of(outcome)
    return rates
