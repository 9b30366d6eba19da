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
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from alignkit.data import loading
from alignkit.data.dataset import Dataset
from alignkit.errors import AlignkitError, RecordsError
from alignkit.execution.checks import check_device, plan_cohorts
from alignkit.execution.progress import OnStatus, Silence, _Tracker
from alignkit.memory import enough_memory
from alignkit.numerics.machine import device_name
from alignkit.numerics.precision import reproducible
from alignkit.records import registration, store
from alignkit.records.files import write_text
from alignkit.settings.modules import own_code
from alignkit.study.runs import Plan
from alignkit.training.cohorts import Cohort, cohort_id, data_key
from alignkit.training.loop import train_cohort
from alignkit.training.memory import member_bytes

_POLL_SECONDS = 0.2
_SIGN_SECONDS = 1.0
_FEWER = "Ask for fewer --workers, or for smaller layers or batches. What had finished is kept"


class _Stopped(Exception):
    """Raised inside a worker's training loop when the parent wants it to end."""


def execute(
    plan: Plan,
    directory: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    on_status: OnStatus | None = None,
    part: Plan | None = None,
) -> None:
    """Train what has no records yet below `directory`, one cohort after another or in `workers` processes.

    Of the plan, a `part` alone is trained where one is given: its runs share no cohort with the others.
    """
    planned = plan_cohorts(plan if part is None else part, device=device)
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
    needed = len(cohort.runs) * member_bytes(cohort.settings, cohort.data, device.partition(":")[0])
    training = enough_memory(f"{cohort.label}: {len(cohort.runs)} runs that train together", _FEWER, needed=needed)
    with own_code(cohort.rule, what=f'rule "{cohort.rule}"', let_through=(_Stopped,)), training:
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


_HELD = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back, not lose them: they arrive at the end. Processes started inside never receive them.

    The mask is what those processes inherit. It is not enough for this one: another thread of it (a linear
    algebra library's, say) may take the signal, and Python then answers it here all the same.
    """
    came: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    ours = [number for number in _HELD if main and signal.getsignal(number) is not None]
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    before = [signal.signal(number, lambda number, frame: came.append(number)) for number in ours]
    try:
        yield
    finally:
        for held_number, handler in zip(ours, before, strict=True):
            signal.signal(held_number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        for number in dict.fromkeys(came):
            signal.raise_signal(number)


@contextlib.contextmanager
def _without_main(cohorts: Sequence[Cohort]) -> Iterator[None]:
    """Start processes that do not run the user's script anew.

    They need nothing of it, unless it holds a rule; and where it has no `if __name__ == "__main__"` it would ask for
    processes in each of them.
    """
    if _uses_main(cohorts):
        yield
        return
    script = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _uses_main(cohorts: Sequence[Cohort]) -> bool:
    return any(cohort.rule.startswith("__main__:") for cohort in cohorts)


_worker: dict[str, Any] = {}


def _start_worker(directory: Path, device: str, shares: Any, signs: Any) -> None:
    _worker.update(directory=directory, device=device, shares=shares, signs=signs, datasets=_Datasets(), at=None)
    if not hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    for watch in (_end_with_parent, _end_by_parent, _give_signs):
        threading.Thread(target=watch, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _end_by_parent() -> None:
    """SIGTERM to a whole group is the parent's to answer: it tells the workers when to stop. Its own ends them."""
    if not hasattr(signal, "sigwaitinfo"):
        return
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(1)


def _give_signs() -> None:
    """Tell the parent that this process lives, however long its cohort takes for a step."""
    while True:
        at = _worker["at"]
        if at is not None:
            _worker["signs"][2 * at] = time.monotonic()
        time.sleep(_SIGN_SECONDS)


def _work(cohort: Cohort, index: int) -> None:
    shares, signs = _worker["shares"], _worker["signs"]
    signs[2 * index], signs[2 * index + 1] = time.monotonic(), os.getpid()
    _worker["at"] = index

    def progress(share: float) -> None:
        shares[index] = min(share, 0.999)
        if shares[-1]:
            raise _Stopped

    try:
        with reproducible(_worker["device"]):
            _finish(cohort, _worker["datasets"], _worker["directory"], _worker["device"], progress)
    finally:
        _worker["at"] = None
        signs[2 * index] = 0.0
    shares[index] = 1.0


def _run_in_processes(todo: Sequence[Cohort], directory: Path, device: str, workers: int, tracker: _Tracker) -> None:
    for cohort in {data_key(cohort.settings): cohort for cohort in todo}.values():
        loading.load(cohort.settings.data)  # decoded and cached once, before the workers all want it
    context = multiprocessing.get_context("spawn")
    shares = context.Array("d", len(todo) + 1, lock=False)  # the last element tells workers to stop
    signs = context.Array("d", 2 * len(todo), lock=False)  # when each cohort's worker last gave one, and which it is
    silence = Silence(todo)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(directory, device, shares, signs)
    )
    others = set(multiprocessing.active_children())
    processes: set[multiprocessing.process.BaseProcess] = set()
    try:
        # by the workers that submitting starts, for good: Ctrl-C is ours to answer
        with _interrupts_held(), _without_main(todo):
            pending: set[Future[None]] = {pool.submit(_work, cohort, index) for index, cohort in enumerate(todo)}
            processes |= set(multiprocessing.active_children()) - others
        while pending:
            done, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            tracker.report(list(shares)[:-1], silence.notes(signs[::2], signs[1::2], time.monotonic()))
    except BrokenProcessPool:
        raise AlignkitError(_death(processes, uses_main=_uses_main(todo))) from None
    finally:
        shares[len(todo)] = 1.0
        _wake(processes)
        pool.shutdown(wait=True, cancel_futures=True)


def _wake(processes: Iterable[multiprocessing.process.BaseProcess]) -> None:
    """Let workers go on that somebody stopped: else nobody could wait for their end."""
    for process in processes:
        if process.pid is not None and process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)


def _death(processes: Iterable[multiprocessing.process.BaseProcess], *, uses_main: bool) -> str:
    """How a worker died, as far as it is known, and what to do."""
    for process in processes:
        process.join(5.0)
    codes = {process.exitcode for process in processes}
    if uses_main:
        how, mend = "", 'put what the script does under if __name__ == "__main__", or its rule in a module of its own'
    elif -signal.SIGKILL in codes:
        how, mend = (
            " (it was killed, most likely by the system for want of memory)",
            "run the same command again, with fewer --workers",
        )
    else:
        signals = [signal.Signals(-code).name for code in codes if code is not None and code < 0]
        how = f" (by {', '.join(sorted(signals))})" if signals else ""
        mend = "run the same command again; with --workers 1 it says what happens"
    return f"a worker process died{how}. What had finished is kept: {mend}"
