"""uvicorn's HTTP protocol, with the limits on a request's head that it lacks."""

import os
from asyncio import BaseTransport, TimerHandle

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SIZE = 64 * 1024  # bytes: request line and headers, trailers, the head of a chunk
HEAD_TIMEOUT = 10  # seconds
UNREAD_SIZE = 10_000_000  # bytes of a body after its response, a 413 for instance

BODY = {b"content-length", b"transfer-encoding"}
REFUSAL = b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
TOO_LARGE = REFUSAL % b"431 Request Header Fields Too Large"
TOO_SLOW = REFUSAL % b"408 Request Timeout"

# The last file descriptor of this process. Windows has no such limit.
LAST_FILE = os.sysconf("SC_OPEN_MAX") - 1 if hasattr(os, "sysconf") else None


class Protocol(HttpToolsProtocol):
    """Refuses a head that is too large or too slow, and a body that nobody reads."""

    unparsed = 0  # bytes since a head, or a part of a body, was complete
    unread = 0  # bytes since a part of a body was read
    timer: TimerHandle  # of a head that is not complete

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type] # uvicorn narrows it
        self.timer = self.loop.call_later(HEAD_TIMEOUT, self.refuse, TOO_SLOW)
        if transport.get_extra_info("socket").fileno() == LAST_FILE:  # uvloop is silent
            self.logger.error("Too many open files: further connections fail.")

    def data_received(self, data: bytes) -> None:
        self.unparsed += len(data)
        self.unread += len(data)
        super().data_received(data)
        if self.unparsed > HEAD_SIZE or self.unread > UNREAD_SIZE:
            self.refuse(TOO_LARGE)
        elif self.unparsed and self.timer.cancelled() and self.is_idle():
            self.timer = self.loop.call_later(HEAD_TIMEOUT, self.refuse, TOO_SLOW)

    def on_headers_complete(self) -> None:
        self.unparsed = self.unread = 0
        self.timer.cancel()
        if self.parser.should_upgrade() and BODY & {name for name, _ in self.headers}:
            raise ValueError("the parser would lose the body")  # uvicorn answers 400
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.unparsed = 0
        if not self.is_idle():
            self.unread = 0
        super().on_body(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.timer.cancel()
        super().connection_lost(exc)

    def is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def refuse(self, response: bytes) -> None:
        if self.is_idle() and not self.transport.is_closing():
            self.transport.write(response)
        self.transport.close()
