"""Ctrl-C and SIGTERM: the first asks, the second ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from study.cli.interruption import INTERRUPTED, Interruption

SLEEPER = """
import time
from study.cli.interruption import Interruption
try:
    with Interruption("continue with: study resume x") as interruption:
        print("ready", flush=True)
        while not interruption.requested:
            time.sleep(0.01)
        print("requested", flush=True)
        time.sleep(60)
finally:
    print("never said when it ends at once", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_raises_nothing(number, capfd):
    before = signal.getsignal(number)
    with Interruption("parting") as interruption:
        assert not interruption.requested
        os.kill(os.getpid(), number)
        assert interruption.requested
    assert signal.getsignal(number) == before
    assert "once more" in capfd.readouterr().err


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_the_process_at_once_and_says_how_to_go_on(second):
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "requested\n"
        asked = time.monotonic()
        process.send_signal(second)
        out, err = process.communicate(timeout=10)
    assert time.monotonic() - asked < 5
    assert process.returncode == INTERRUPTED
    assert err.splitlines()[-1] == "study: continue with: study resume x"
    assert out == ""


SHIELDED = """
import os, signal, subprocess, sys
from study.timing.processes import interrupts_held
child = "import os, signal, time; print('up', flush=True); time.sleep(0.3); print('whole', flush=True)"
try:
    with interrupts_held():
        process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        os.killpg(0, signal.SIGINT)
        print("held", flush=True)
except KeyboardInterrupt:
    print("raised", flush=True)
print(process.communicate()[0].strip(), flush=True)
"""


def test_a_process_that_measures_is_shielded_from_the_start_and_the_interruption_comes_after():
    done = subprocess.run(
        [sys.executable, "-c", SHIELDED],
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["held", "raised", "whole"]
