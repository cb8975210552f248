"""Child processes and signals."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]


def run(command: list[str]) -> int:
    """Run `command` to its end, or until a signal terminates it. Returns its exit status."""
    prepare = None if sys.platform == "win32" else die_with_parent
    try:
        process = subprocess.Popen(command, preexec_fn=prepare)  # noqa: S603 - the user's own
    except OSError as error:
        print(f"dev: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: process.terminate())
    if sys.stdin.isatty():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the command too
    return status if (status := process.wait()) >= 0 else 128 - status


@contextmanager
def hold_signals() -> Iterator[None]:
    """Delay signals to this process, and to children started meanwhile, until the block ends."""
    if sys.platform == "win32":
        yield
    else:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with_parent() -> None:
    """On Linux, terminate this process when its parent is killed, which frees the port."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
