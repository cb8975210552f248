"""A delay between SIGTERM and shutdown, in which load balancers still send connections."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Shutdown:
    """Ends the process `delay` seconds after SIGTERM; with 0, uvicorn handles the signal."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.begun = self.ended = False
        self.timer: asyncio.TimerHandle | None = None

    @contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """Begin the shutdown on SIGTERM. A second SIGTERM skips the delay."""
        if not self.delay or threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can handle signals
            return
        loop = asyncio.get_running_loop()
        previous = signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(self.begin))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)
            if self.timer:
                self.timer.cancel()
            self.begun = self.ended = False

    def begin(self) -> None:
        delay = 0 if self.begun else self.delay
        self.begun = True
        if self.timer:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(delay, self.end)

    def end(self) -> None:
        """Send SIGINT: uvicorn finishes the requests in flight. A second one would cancel them."""
        if not self.ended:
            self.ended = True
            signal.raise_signal(signal.SIGINT)
