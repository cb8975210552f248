"""The end of a process: told to the load balancer before it comes.

On SIGTERM uvicorn refuses connections at once, while a balancer still sends them.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Shutdown:
    """Whether this process is about to end, which it does `delay` seconds after SIGTERM.

    Without a delay SIGTERM is uvicorn's.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.begun = self.ended = False
        self.timer: asyncio.TimerHandle | None = None

    @contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """Have SIGTERM begin the end, and a second one not wait for it."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not self.delay or not in_main_thread:  # a test's thread cannot have signals
            yield
            return
        loop = asyncio.get_running_loop()
        previous = signal.signal(
            signal.SIGTERM, lambda number, frame: loop.call_soon_threadsafe(self.begin)
        )
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
        """Once: a second SIGINT would break off the requests in flight.

        On the first uvicorn finishes them, as it does on SIGTERM, and its exit status is 0.
        """
        if not self.ended:
            self.ended = True
            signal.raise_signal(signal.SIGINT)


class CloseConnections:
    """Sends clients elsewhere once the end has begun.

    A connection that is kept alive leads here still, where balancers choose by connection.
    """

    def __init__(self, app: ASGIApp, shutdown: Shutdown) -> None:
        self.app, self.shutdown = app, shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self.app(scope, receive, send_last if self.shutdown.begun else send)
