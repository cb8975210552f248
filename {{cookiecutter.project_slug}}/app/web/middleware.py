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
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id = dict(scope["headers"]).get(b"x-request-id", b"")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = token_hex(16).encode()
        clear_contextvars()
        bind_contextvars(request_id=request_id.decode())
        added = HTTPS_HEADERS if scope.get("scheme") == "https" else HEADERS
        added = [*added, (b"x-request-id", request_id)]
        status: int | None = None
        start = end = perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status, end
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = complete(message.get("headers", []), added)
                if self.shutdown.begun:  # so that a load balancer reconnects elsewhere
                    message["headers"].append((b"connection", b"close"))
            await send(message)
            end = perf_counter()

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            log_access(scope, status, (perf_counter() if status is None else end) - start)


def complete(given: RawHeaders, added: RawHeaders) -> RawHeaders:
    """Return the given headers and the missing ones of `added`.

    A response with an ETag may be stored and revalidated. Any other one may not be stored.
    """
    names = {name for name, _ in given}
    cache = (b"cache-control", b"no-cache" if b"etag" in names else b"no-store")
    return [*given, *(header for header in (*added, cache) if header[0] not in names)]


def log_access(scope: Scope, status: int | None, seconds: float) -> None:
    """Log one line without the query, which may hold a token."""
    level = logging.DEBUG if is_probe(scope) else logging.INFO
    if access_log.isEnabledFor(level):
        fields = {
            "method": scope["method"],
            "path": quote(scope["path"]),
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
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
