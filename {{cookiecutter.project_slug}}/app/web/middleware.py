"""Middleware for every request: id, log line, response headers, allowed hosts, CORS."""

import logging
import re
from collections.abc import Sequence
from secrets import token_hex
from time import perf_counter
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from app.web.shutdown import Shutdown

RawHeaders = list[tuple[bytes, bytes]]

REQUEST_ID = re.compile(rb"[\w.+/=:-]{1,128}")

# The headers of every response, unless its route sets them.
HEADERS: RawHeaders = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
HTTPS_HEADERS = [*HEADERS, (b"strict-transport-security", b"max-age=31536000")]

# The messages that carry a response's headers.
STARTS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}

PROBES = {"/health/live", "/health/ready"}

access_log = logging.getLogger("app.access")


class Application(FastAPI):
    """FastAPI whose `outer_middleware` also wraps its own 413 and 500. `middleware` does not."""

    def __init__(self, *, outer_middleware: Sequence[Middleware], **options: Any) -> None:
        super().__init__(**options)
        self.outer_middleware = outer_middleware

    def build_middleware_stack(self) -> ASGIApp:
        app = super().build_middleware_stack()
        for cls, arguments, options in reversed(self.outer_middleware):
            app = cls(app, *arguments, **options)
        return app


class RequestContext:
    """Gives a request an id and a log line, and its response the headers of every response.

    The id is the client's `X-Request-ID` if it is well-formed. It stays bound after the
    request, because the server may still log an error then.
    """

    def __init__(self, app: ASGIApp, shutdown: Shutdown) -> None:
        self.app, self.shutdown = app, shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        request_id = dict(scope["headers"]).get(b"x-request-id", b"")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = token_hex(16).encode()
        clear_contextvars()
        bind_contextvars(request_id=request_id.decode())
        added = HTTPS_HEADERS if scope.get("scheme") in {"https", "wss"} else HEADERS
        response = Response(send, [*added, (b"x-request-id", request_id)], self.shutdown)
        try:
            await self.app(scope, receive, response.send)
        finally:
            log_access(scope, response)


class Response:
    """Adds headers to the messages of one response, and times them."""

    def __init__(self, send: Send, headers: RawHeaders, shutdown: Shutdown) -> None:
        self.forward, self.headers, self.shutdown = send, headers, shutdown
        self.status: int | None = None
        self.start = perf_counter()
        self.end = 0.0  # no message yet

    async def send(self, message: Message) -> None:
        if message["type"] in STARTS:
            self.status = message.get("status", 101)  # a WebSocket's acceptance has none
            message["headers"] = complete(message.get("headers", []), self.headers)
            if self.shutdown.begun:  # so that a load balancer reconnects elsewhere
                message["headers"].append((b"connection", b"close"))
        await self.forward(message)
        self.end = perf_counter()


def complete(given: RawHeaders, added: RawHeaders) -> RawHeaders:
    """Return the given headers and the missing ones of `added`.

    A response with an ETag may be stored and revalidated. Any other one may not be stored.
    """
    names = {name for name, _ in given}
    cache = (b"cache-control", b"no-cache" if b"etag" in names else b"no-store")
    return [*given, *(header for header in (*added, cache) if header[0] not in names)]


def log_access(scope: Scope, response: Response) -> None:
    """Log one line without the query, which may hold a token."""
    level = logging.DEBUG if is_probe(scope) else logging.INFO
    if access_log.isEnabledFor(level):
        fields = {
            "method": scope.get("method", "WEBSOCKET"),
            "path": quote(scope["path"]),
            "status": response.status,
            "duration_ms": round(((response.end or perf_counter()) - response.start) * 1000, 2),
            "client": scope["client"][0] if scope.get("client") else None,
        }
        access_log.log(level, "request", extra=fields)


def is_probe(scope: Scope) -> bool:
    """Tell whether a load balancer or a container engine asks for the state of this process."""
    path: str = scope.get("path", "")
    return path.removeprefix(scope.get("root_path", "")) in PROBES


class AllowedHosts(TrustedHostMiddleware):
    """Refuses other Host headers. Probes pass, because they use the IP address."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.app if is_probe(scope) else super().__call__)(scope, receive, send)


def cors(origins: list[str]) -> list[Middleware]:
    """Return the middleware that lets pages of `origins` call the API, without cookies."""
    middleware = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["X-Request-ID"],
    )
    return [middleware] if origins else []
