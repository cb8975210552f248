"""uvicorn's HTTP protocol, with the limits on a request's head that it lacks."""

import math
import os
import socket
import sys
from asyncio import BaseTransport, TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SIZE = 64 * 1024  # bytes: request line and headers, trailers, the head of a chunk
HEAD_TIMEOUT = 10  # seconds
SEND_TIMEOUT = 30_000  # milliseconds in which a client reads nothing of its response
PIPELINE = 100  # waiting requests of one connection
UNREAD_SIZE = 10_000_000  # bytes of a body that follow its response, a 413 for instance

BODY = {b"content-length", b"transfer-encoding"}
REFUSAL = b"HTTP/1.1 %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
TOO_LARGE = REFUSAL % b"431 Request Header Fields Too Large"
TOO_SLOW = REFUSAL % b"408 Request Timeout"

# The last file descriptor of this process. Windows has no such limit.
LAST_FILE = os.sysconf("SC_OPEN_MAX") - 1 if hasattr(os, "sysconf") else None


class Protocol(HttpToolsProtocol):
    """Refuses a head that is too large or too slow, and a body that nobody reads."""

    unparsed = 0  # bytes since the last complete head or part of a body
    unread = 0  # bytes since a part of a body was read
    running: Any = None  # the request that is answered
    timer: TimerHandle  # of a head that is not complete

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type] # uvicorn narrows it
        self.timer = self.loop.call_later(HEAD_TIMEOUT, self.refuse, TOO_SLOW)
        # uvicorn itself counts only the connections whose head is complete.
        if len(self.connections) > 1.25 * (self.limit_concurrency or math.inf):
            self.transport.abort()
        peer = transport.get_extra_info("socket")
        if sys.platform == "linux" and peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SEND_TIMEOUT)
        if peer.fileno() == LAST_FILE:  # uvloop is silent
            self.logger.error("Too many open files: further connections fail.")

    def data_received(self, data: bytes) -> None:
        self.unparsed += len(data)
        self.unread += len(data)
        super().data_received(data)
        if self.unparsed > HEAD_SIZE or self.unread > UNREAD_SIZE:
            self.refuse(TOO_LARGE)
        elif self.timer.cancelled() and self.is_idle() and self.transport.get_protocol() is self:
            self.timer = self.loop.call_later(HEAD_TIMEOUT, self.refuse, TOO_SLOW)

    def on_headers_complete(self) -> None:
        self.unparsed = self.unread = 0
        self.timer.cancel()
        if len(self.pipeline) >= PIPELINE:  # uvicorn answers a ValueError with 400
            raise ValueError("too many requests wait for their responses")
        if self.parser.should_upgrade():
            if BODY & {name for name, _ in self.headers}:
                raise ValueError("the parser would lose the body")
            if not self.is_idle():
                raise ValueError("a WebSocket would begin within the response before it")
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        if "method" not in self.scope:  # else it is a trailer, which nothing checks
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self.unparsed = 0
        if not self.is_idle():
            self.unread = 0
        super().on_body(body)

    def handle_websocket_upgrade(self) -> None:
        """Answer a handshake that `websockets` refuses. uvicorn leaves it open."""
        super().handle_websocket_upgrade()
        handshake = getattr(self.transport.get_protocol(), "conn", None)
        if handshake and handshake.handshake_exc:
            self.transport.write(b"".join(handshake.data_to_send()))
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self.disconnect()
        super().send_400_response(msg)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self.running = cycle  # uvicorn's `cycle` is the newest, which may wait for this one
        super()._start_asgi_task(cycle, app)

    def disconnect(self) -> None:
        """Tell the application, whose next write would raise otherwise."""
        if self.running and not self.running.response_complete:
            self.running.disconnected = True
            self.running.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.timer.cancel()
        self.disconnect()
        super().connection_lost(exc)

    def is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def refuse(self, response: bytes) -> None:
        if self.is_idle() and not self.transport.is_closing():
            self.transport.write(response)
        self.disconnect()
        self.transport.close()
