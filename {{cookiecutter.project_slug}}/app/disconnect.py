"""A request whose client has left is cancelled."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATIENCE = 0.1  # seconds; most requests are done by then, at no cost


class CancelOnDisconnect:
    """Cancels a request whose client leaves before the answer begins.

    So its transaction is rolled back, its query ends on the server too, and nobody waits for
    its connection in vain. What must be done nevertheless goes into `asyncio.shield`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        watch = Watch(receive, has_body(scope))

        async def send_unwatched(message: Message) -> None:
            watch.stop()
            await send(message)

        try:
            async with asyncio.timeout(None) as watch.limit:
                await self.app(scope, watch.receive, send_unwatched)
        except TimeoutError:
            if not watch.limit.expired():
                raise
        finally:
            watch.stop()


class Watch:
    """Asks the server whether the client is there, once the body has been read."""

    limit: asyncio.Timeout

    def __init__(self, receive: Receive, body_left: bool) -> None:
        self.receive_next, self.body_left = receive, body_left
        self.early: list[Message] = []  # received before the application asked
        self.task: asyncio.Task[None] | None = None
        self.timer = asyncio.get_running_loop().call_later(PATIENCE, self.start)

    async def receive(self) -> Message:
        message = self.early.pop() if self.early else await self.receive_next()
        self.body_left = message.get("more_body", False)
        return message

    def start(self) -> None:
        if self.body_left:
            self.timer = asyncio.get_running_loop().call_later(PATIENCE, self.start)
        else:
            self.task = asyncio.create_task(self.wait())

    async def wait(self) -> None:
        message = await self.receive_next()
        if message["type"] == "http.request":  # the empty body of a request that has none
            self.early.append(message)
            message = await self.receive_next()
        if message["type"] == "http.disconnect":
            self.limit.reschedule(0)  # now

    def stop(self) -> None:
        self.timer.cancel()
        if self.task:
            self.task.cancel()


def has_body(scope: Scope) -> bool:
    """Whether the client announced a body."""
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
