import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from alignkit.errors import OutOfMemory
from alignkit.execution import workers
from alignkit.execution.checks import plan_cohorts
from alignkit.execution.progress import Silence
from alignkit.execution.run_study import StudySource, run_study, study_plan
from alignkit.execution.workers import _death, _interrupts_held
from alignkit.study.study import Study

SMALL = {
    "name": "small", "seeds": 2, "network": {"width": 8, "depth": 1}, "training": {"epochs": 1},
    "probe": {"samples": 32, "log_steps": 0}, "designs": {"d": {"factors": {"network.width": [8, 9, 10, 11]}}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def answered():
    """Ctrl-C as in a terminal: where the tests are a shell's background job it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_held_interrupt_arrives_at_the_end_whichever_thread_takes_it():
    ready, over = threading.Event(), threading.Event()

    def other():  # started before the hold: it does not block the signal
        ready.set()
        over.wait()

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait()
    reached = False
    try:
        with pytest.raises(KeyboardInterrupt), _interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # another thread's signal is answered once this one takes the interpreter again
            reached = True
    finally:
        over.set()
        thread.join()
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_processes_started_while_interrupts_are_held_never_receive_one():
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set()))"
    with _interrupts_held():
        inside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    outside = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (inside.stdout.strip(), outside.stdout.strip()) == ("True", "False")


def test_without_an_interrupt_nothing_is_raised_and_a_thread_may_hold_too():
    with _interrupts_held():
        pass
    raised = []

    def hold():
        try:
            with _interrupts_held():
                pass
        except BaseException as error:  # an interrupt is none of Exception
            raised.append(error)

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert not raised


def _small_cohorts():
    return plan_cohorts(study_plan(StudySource(Study.parse(SMALL), Path("small.toml")), rates=None), device="cpu")


def test_silence_is_told_of_once_and_again_when_it_has_doubled():
    cohorts = _small_cohorts()[:2]
    silence, told = Silence(cohorts, after=10.0), []
    for now in range(100, 200):  # the first worker's last sign was at 105, the second never began
        signs = (min(now, 105.0), 0.0)
        told += [(now, note) for note in silence.notes(signs, (4242.0, 0.0), float(now))]
    assert [now for now, _ in told] == [115, 125, 145, 185]
    assert told[0][1].startswith(f"{cohorts[0].label}: its worker, process 4242, has given no sign of life for 10 s. ")
    assert silence.notes((199.0, 0.0), (4242.0, 0.0), 200.0) == ()


def test_who_slept_himself_accuses_nobody():
    silence = Silence(_small_cohorts()[:1], after=10.0)
    assert silence.notes((100.0,), (1.0,), 101.0) == ()
    assert silence.notes((100.0,), (1.0,), 500.0) == ()  # this process was stopped as well
    assert [len(silence.notes((100.0,), (1.0,), now)) for now in (502.0, 504.0, 506.0, 508.0, 510.0)] == [0] * 4 + [1]


@pytest.mark.slow
def test_a_worker_that_is_stopped_is_named_and_the_run_ends_once_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "Silence", lambda cohorts: Silence(cohorts, after=2.0))
    stopped, notes = [], []

    def on_status(status):
        notes.extend(status.notes)
        if status.running and not stopped:
            stopped.extend(process.pid for process in multiprocessing.active_children())
            for process in stopped:
                os.kill(process, signal.SIGSTOP)
        if status.notes:
            for process in stopped:
                os.kill(process, signal.SIGCONT)

    long = Study.parse(SMALL | {"seeds": 1, "training": {"epochs": 40}})
    records = run_study(
        StudySource(long, tmp_path / "small.toml"),
        tmp_path / "out",
        workers=2,
        device="cpu",
        on_stage=lambda stage: on_status,
    )
    assert len(records.runs) == 8 and records.missing == 0
    assert any(f"process {process}, has given no sign of life for" in note for note in notes for process in stopped)


def test_a_script_needs_no_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import alignkit
from alignkit.execution.run_study import StudySource
from pathlib import Path
print("script runs")
study = StudySource(alignkit.Study.parse({SMALL!r}), Path("small.toml"))
print(len(alignkit.run_study(study, {str(tmp_path / "out")!r}, workers=2, device="cpu").runs), "runs")
"""
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "script runs\n16 runs\n"), ended.stderr


def test_a_rule_of_the_script_s_own_needs_the_script():
    cohort = _small_cohorts()[0]
    script = sys.modules["__main__"]
    with workers._without_main([cohort]):
        assert sys.modules["__main__"] is not script
    assert sys.modules["__main__"] is script
    with workers._without_main([dataclasses.replace(cohort, rule="__main__:Own")]):
        assert sys.modules["__main__"] is script


@pytest.mark.parametrize(
    ("codes", "uses_main", "message"),
    [
        (
            [0, -9],
            False,
            "killed, most likely by the system for want of memory). What had finished is kept: run the same",
        ),
        ([-11, -15], False, r"died (by SIGSEGV, SIGTERM). What had finished is kept"),
        ([1], True, 'put what the script does under if __name__ == "__main__"'),
    ],
)
def test_how_a_worker_died_is_said(codes, uses_main, message):
    processes = [types.SimpleNamespace(exitcode=code, join=lambda timeout: None) for code in codes]
    assert message in _death(processes, uses_main=uses_main)


def test_memory_that_runs_out_in_training_names_the_cohort(tmp_path, monkeypatch):
    def exhausted(*arguments, **options):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(workers, "train_cohort", exhausted)
    source = StudySource(Study.parse(SMALL), tmp_path / "small.toml")
    with pytest.raises(OutOfMemory, match=r"dfa|bp .*: 2 runs that train together: out of memory; it takes about"):
        run_study(source, tmp_path / "out", workers=1, device="cpu")
