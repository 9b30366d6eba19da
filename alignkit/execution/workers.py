"""Where cohorts run: in this process, or in worker processes beside it.

Whole cohorts alone are written, so a stop at any moment loses at most the cohorts under way, and the
same command goes on with the rest. On a CPU every process computes with one thread: results then do
not depend on the number of workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from alignkit.data import loading
from alignkit.data.dataset import Dataset
from alignkit.errors import AlignkitError, RecordsError
from alignkit.execution.checks import check_device, plan_cohorts
from alignkit.execution.progress import OnStatus, _Tracker
from alignkit.numerics.machine import device_name
from alignkit.numerics.precision import reproducible
from alignkit.records import registration, store
from alignkit.records.files import write_text
from alignkit.settings.modules import own_code
from alignkit.study.runs import Plan
from alignkit.training.cohorts import Cohort, cohort_id, data_key
from alignkit.training.loop import train_cohort

_POLL_SECONDS = 0.2


class _Stopped(Exception):
    """Raised inside a worker's training loop when the parent wants it to end."""


def execute(
    plan: Plan, directory: Path, *, device: str = "cpu", workers: int = 1, on_status: OnStatus | None = None
) -> None:
    """Train what has no records yet below `directory`, one cohort after another or in `workers` processes."""
    planned = plan_cohorts(plan, device=device)
    check_device(plan, device)
    prepare(plan, directory)
    finished = store.finished_run_ids(directory)
    todo = [cohort for cohort in (_unfinished(cohort, finished) for cohort in planned) if cohort.runs]
    tracker = _Tracker(planned, todo, on_status)
    tracker.report([0.0] * len(todo))
    if not todo:
        return
    if workers == 1 or len(todo) == 1:
        _run_here(todo, directory, device, tracker)
    else:
        _run_in_processes(todo, directory, device, min(workers, len(todo)), tracker)


def prepare(plan: Plan, directory: Path) -> None:
    """Make the study directory, or check that it is this study's; write the study and its plan."""
    known = directory / "study.json"
    if known.exists():
        name = store.read_study(directory).name
        if name != plan.study.name:
            raise RecordsError(
                f'{directory}: holds the records of the study "{name}"; got the study "{plan.study.name}". '
                "Choose another --out"
            )
    elif directory.is_dir() and (directory / "records").is_dir() and store.finished_cohorts(directory):
        raise RecordsError(f"{directory}: has records but no study.json. Restore it, or choose another --out")
    try:
        (directory / "records").mkdir(parents=True, exist_ok=True)
        store.clear_unfinished(directory)
        write_text(known, plan.study.to_json())
        write_text(directory / "plan.json", plan.to_json())
        finished = len(store.finished_run_ids(directory))
        registration.register(directory, plan.study, finished_runs=finished, rates=plan.tuned_rates)
    except OSError as error:
        raise RecordsError(f"{directory}: cannot be made or written ({error.strerror}). Choose another --out") from None


def _unfinished(cohort: Cohort, finished: set[str]) -> Cohort:
    """What is left of a cohort. A part of one is a cohort of its own, with a folder of its own."""
    left = tuple(run for run in cohort.runs if run.run_id not in finished)
    return cohort if left == cohort.runs else dataclasses.replace(cohort, runs=left, cohort_id=cohort_id(left))


class _Datasets:
    """The datasets of a process, each loaded once per device and type."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str, str], Dataset] = {}

    def get(self, cohort: Cohort, device: str) -> Dataset:
        settings = cohort.settings
        key = (data_key(settings), device, settings.training.dtype)
        if key not in self._loaded:
            dtype = torch.float64 if settings.training.dtype == "float64" else torch.float32
            self._loaded[key] = loading.load(settings.data).to(device, dtype)
        return self._loaded[key]


def _finish(
    cohort: Cohort, datasets: _Datasets, directory: Path, device: str, progress: Callable[[float], None]
) -> None:
    started = time.perf_counter()
    dataset = datasets.get(cohort, device)
    with own_code(cohort.rule, what=f'rule "{cohort.rule}"', let_through=(_Stopped,)):
        tables = train_cohort(cohort, dataset, device=device, progress=progress)
    timing = {
        "seconds": round(time.perf_counter() - started, 3),
        "runs": len(cohort.runs),
        "steps": cohort.steps,
        "device": device_name(device) if device.startswith("cuda") else "cpu",
        "processor": device_name("cpu"),
        "torch": torch.__version__,
    }
    store.write_cohort(directory, cohort.cohort_id, tables, timing)


def _run_here(todo: Sequence[Cohort], directory: Path, device: str, tracker: _Tracker) -> None:
    datasets, shares, told = _Datasets(), [0.0] * len(todo), 0.0
    with reproducible(device):
        for index, cohort in enumerate(todo):

            def progress(share: float, index: int = index) -> None:
                nonlocal told
                shares[index] = min(share, 0.999)  # finished is what has been written
                if time.monotonic() - told > _POLL_SECONDS:
                    told = time.monotonic()
                    tracker.report(shares)

            _finish(cohort, datasets, directory, device, progress)
            shares[index] = 1.0
            tracker.report(shares)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, not lose it: it arrives at the end. Processes started inside never receive it.

    The mask is what those processes inherit. It is not enough for this one: another thread of it (a linear
    algebra library's, say) may take the signal, and Python then answers it here all the same.
    """
    came: list[int] = []
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not None
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number)) if ours else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        if came:
            signal.raise_signal(signal.SIGINT)


_worker: dict[str, Any] = {}


def _start_worker(directory: Path, device: str, shares: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.update(directory=directory, device=device, shares=shares, datasets=_Datasets())


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _work(cohort: Cohort, index: int) -> None:
    shares = _worker["shares"]

    def progress(share: float) -> None:
        shares[index] = min(share, 0.999)
        if shares[-1]:
            raise _Stopped

    with reproducible(_worker["device"]):
        _finish(cohort, _worker["datasets"], _worker["directory"], _worker["device"], progress)
    shares[index] = 1.0


def _run_in_processes(todo: Sequence[Cohort], directory: Path, device: str, workers: int, tracker: _Tracker) -> None:
    for cohort in {data_key(cohort.settings): cohort for cohort in todo}.values():
        loading.load(cohort.settings.data)  # decoded and cached once, before the workers all want it
    context = multiprocessing.get_context("spawn")
    shares = context.Array("d", len(todo) + 1, lock=False)  # the last element tells workers to stop
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(directory, device, shares)
    )
    try:
        with _interrupts_held():  # by the workers that submitting starts, for good: Ctrl-C is ours to answer
            pending: set[Future[None]] = {pool.submit(_work, cohort, index) for index, cohort in enumerate(todo)}
        while pending:
            done, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            tracker.report(list(shares)[:-1])
    except BrokenProcessPool:
        raise AlignkitError(
            "a worker process died, most likely for want of memory. What had finished is kept: run the same command "
            "again, with fewer --workers"
        ) from None
    finally:
        shares[len(todo)] = 1.0
        pool.shutdown(wait=True, cancel_futures=True)
