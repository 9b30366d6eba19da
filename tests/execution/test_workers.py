import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from alignkit.execution.workers import _interrupts_held


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
