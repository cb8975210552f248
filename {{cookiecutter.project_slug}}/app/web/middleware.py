"""Middleware for every request: id, log line, response headers, allowed hosts, CORS."""

import asyncio
import logging
import re
from collections.abc import Sequence
from secrets import token_hex
from time import perf_counter
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from app.web.openapi import describe
from app.web.shutdown import Shutdown

BODY_TIMEOUT = 10.0  # seconds for a body, and one more for every BODY_RATE bytes received
BODY_RATE = 5_000
REQUEST_ID = re.compile(r"[\w.+/=:-]{1,128}", re.ASCII)
# The headers of every response, unless its route sets them.
HEADERS = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
HTTPS_HEADERS = [*HEADERS, (b"strict-transport-security", b"max-age=31536000")]
access_log = logging.getLogger("app.access")


class Application(FastAPI):
    """FastAPI whose `outer_middleware` also wraps its own 413 and 500. `middleware` does not."""

    def __init__(self, *, outer_middleware: Sequence[Middleware], **options: Any) -> None:
        quiet = {"exclude": is_probe, "operation_spans": False, "logs": False}  # logs quote rows
        super().__init__(**options | {"telemetry": quiet | options.get("telemetry", {})})
        self.outer_middleware = outer_middleware

    def build_middleware_stack(self) -> ASGIApp:
        app = super().build_middleware_stack()
        for cls, arguments, options in reversed(self.outer_middleware):
            app = cls(app, *arguments, **options)
        return app

    def openapi(self) -> dict[str, Any]:
        return describe(self)


class RequestContext:
    """Binds the id of a request to its log lines, also to the server's own after the request."""

    def __init__(self, app: ASGIApp, shutdown: Shutdown) -> None:
        self.app, self.shutdown = app, shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        exchange = Exchange(scope, receive, send, self.shutdown)
        clear_contextvars()
        bind_contextvars(request_id=exchange.id)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        finally:
            exchange.log()


class Exchange:
    """A request and its response: limits the wait for the body, adds headers, times and logs."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, shutdown: Shutdown) -> None:
        self.scope, self.shutdown = scope, shutdown
        self.server_receive, self.server_send = receive, send
        self.id = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        if not REQUEST_ID.fullmatch(self.id):
            self.id = token_hex(16)
        self.more_body, self.body_seconds = True, BODY_TIMEOUT
        self.status: int | None = None
        self.start = perf_counter()
        self.end = 0.0  # no message yet

    async def receive(self) -> Message:
        """Receive a message. Raises a 408 if the body is too slow."""
        if not self.more_body:  # the next message is the end of the connection
            return await self.server_receive()
        began = perf_counter()
        try:
            async with asyncio.timeout(self.body_seconds):
                message = await self.server_receive()
        except TimeoutError:
            raise HTTPException(408, "The body did not arrive in time.") from None
        self.more_body = message.get("more_body", False)
        self.body_seconds += len(message.get("body", b"")) / BODY_RATE - (perf_counter() - began)
        return message

    async def send(self, message: Message) -> None:
        if message["type"].endswith((".start", ".accept")):  # the messages with headers
            self.status = message.get("status", 101)  # a WebSocket's acceptance has none
            message["headers"] = self.complete(list(message.get("headers", ())))
        await self.server_send(message)
        self.end = perf_counter()

    def complete(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Add the missing headers. Only a response with an ETag may be stored."""
        present = {name.lower() for name, _ in headers}
        storage = b"no-cache" if b"etag" in present else b"no-store"
        own = [(b"x-request-id", self.id.encode()), (b"cache-control", storage)]
        added = HTTPS_HEADERS if self.scope.get("scheme") in {"https", "wss"} else HEADERS
        headers += [pair for pair in added + own if pair[0] not in present]
        # So that a load balancer reconnects elsewhere. After a 408, a body may still come.
        if self.shutdown.begun or self.status == 408:
            headers.append((b"connection", b"close"))
        return headers

    def log(self) -> None:
        """Log one line without the query, which may hold a token."""
        level = logging.DEBUG if is_probe(self.scope) else logging.INFO
        if access_log.isEnabledFor(level):
            fields = {
                "method": self.scope.get("method", "WEBSOCKET"),
                "path": quote(self.scope["path"][:1000]),
                "status": self.status,
                "duration_ms": round(((self.end or perf_counter()) - self.start) * 1000, 2),
                "client": (self.scope.get("client") or [None])[0],
            }
            # log() would take longer, to find its caller.
            record = ("app.access", level, "", 0, "request", (), None)
            access_log.handle(access_log.makeRecord(*record, extra=fields))


def is_probe(scope: Scope) -> bool:
    """Tell whether a load balancer or a container engine asks for the state of this process."""
    path = str(scope.get("path", "")).removeprefix(scope.get("root_path", ""))
    return path in {"/health/live", "/health/ready"}


class AllowedHosts(TrustedHostMiddleware):
    """Refuses other Host headers. Probes pass, because they use the IP address."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.app if is_probe(scope) else super().__call__)(scope, receive, send)


def allowed_hosts(hosts: list[str]) -> list[Middleware]:
    return [] if "*" in hosts else [Middleware(AllowedHosts, hosts)]


def cors(origins: list[str]) -> list[Middleware]:
    """Return the middleware that lets pages of `origins` call the API, without cookies."""
    options: dict[str, Any] = {"allow_methods": ["*"], "allow_headers": ["*"]}
    middleware = Middleware(CORSMiddleware, origins, expose_headers=["X-Request-ID"], **options)
    return [middleware] if origins else []
