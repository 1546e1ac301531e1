"""What a forked child of the driver inherits: no lock that another thread held, no way to survive SIGTERM."""

import subprocess
import sys

import pytest

SET_UP = """
import os, signal, sys, threading, time
from py4j.finalizer import ThreadSafeFinalizer
from jobserver.driver import forks, output

output.keep_open()
signal.signal(signal.SIGTERM, lambda *_: None)  # as the driver, which goes on

class Client:
    pass

forks.install(Client(), lambda: None)

def in_thread(work):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(work()))
    thread.start()
    thread.join()
    return answers[0]
"""
ENDS = """
def fork_and_end():
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(3)
    os.kill(child, signal.SIGTERM)
    return os.waitpid(child, 0)[1]

print([in_thread(fork_and_end) for _ in range(20)] == [signal.SIGTERM] * 20)
print(signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
LOCKS = """
held, free = threading.Event(), threading.Event()

def hold():
    with ThreadSafeFinalizer.lock:
        held.set()
        free.wait(60)

threading.Thread(target=hold, daemon=True).start()
held.wait()

def fork_and_take():
    child = os.fork()
    if child == 0:
        taken = ThreadSafeFinalizer.lock.acquire(timeout=10)
        os._exit(0 if taken and ThreadSafeFinalizer.finalizers == {} else 1)
    return os.waitpid(child, 0)[1]

ThreadSafeFinalizer.finalizers["kept"] = None
print(in_thread(fork_and_take), ThreadSafeFinalizer.finalizers)
free.set()
"""


@pytest.mark.parametrize(
    ("code", "said"), [(ENDS, "True\nFalse\n"), (LOCKS, "0 {'kept': None}\n")], ids=["signals", "locks"]
)
def test_a_child_ends_when_told_to_and_finds_no_lock_taken_for_ever(code, said):
    done = subprocess.run([sys.executable, "-c", SET_UP + code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == (said, 0), done.stderr
