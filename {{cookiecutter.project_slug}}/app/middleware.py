"""What a request passes before it reaches a route, and what its answer passes afterwards."""

import logging
import re
from fnmatch import fnmatchcase
from secrets import token_hex
from time import perf_counter
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from app.config import Settings
from app.disconnect import CancelOnDisconnect
from app.errors import problem

RawHeaders = list[tuple[bytes, bytes]]

REQUEST_ID = re.compile(rb"[\w.+/=:-]{1,128}")

# What an answer has where its route does not say otherwise.
HEADERS: RawHeaders = [
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
HTTPS_HEADERS = [*HEADERS, (b"strict-transport-security", b"max-age=31536000")]

# What FastAPI says of a body that is declared to be over `max_body_size`, and in its place:
PLAIN_413 = PlainTextResponse("Content Too Large", 413)
PROBLEM_413 = problem(413, "Content Too Large")
PROBLEM = dict(zip(PLAIN_413.raw_headers, PROBLEM_413.raw_headers, strict=True))

PROBES = {"/health/live", "/health/ready"}

access_log = logging.getLogger("app.access")


class Application(FastAPI):
    """FastAPI, with what holds for its own answers too, a 413 or a 500, around its middleware."""

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        settings: Settings = self.state.settings
        if settings.cors_origins:
            stack = CORSMiddleware(  # without cookies: a token in a header works
                stack,
                allow_origins=settings.cors_origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["X-Request-ID"],
            )
        return RequestContext(stack)


def install(app: FastAPI, settings: Settings) -> None:
    """Add what holds for every request, and what the settings name; the innermost first."""
    app.add_middleware(CancelOnDisconnect)
    if settings.allowed_hosts:
        app.add_middleware(AllowedHosts, hosts=settings.allowed_hosts)


class RequestContext:
    """Gives a request its id and a line in the log, and its answer the headers that all have.

    The id is the client's `X-Request-ID`, if it looks like one. It stays bound when all is
    done, since the server may log an error then.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

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

        async def answer(message: Message) -> None:
            nonlocal status, end
            if message["type"] == "http.response.start":
                status = message["status"]
                given = list(message.get("headers", []))
                if status == 413 and PROBLEM.keys() <= set(given):
                    given = [PROBLEM.get(header, header) for header in given]
                message["headers"] = complete(given, added)
            elif message.get("body") == PLAIN_413.body and status == 413:
                message["body"] = PROBLEM_413.body
            await send(message)
            end = perf_counter()

        try:
            await self.app(scope, receive, answer)
        finally:
            log_access(scope, status, (perf_counter() if status is None else end) - start)


def complete(given: RawHeaders, added: RawHeaders) -> RawHeaders:
    """The given headers, and the added ones that they lack; only what has an ETag may be kept."""
    names = {name for name, _ in given}
    added = [*added, (b"cache-control", b"no-cache" if b"etag" in names else b"no-store")]
    return given + [(name, value) for name, value in added if name not in names]


def log_access(scope: Scope, status: int | None, seconds: float) -> None:
    """One line, without the query, which may hold a token."""
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
    """Whether a load balancer asks, or a container engine."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) in PROBES


class AllowedHosts:
    """Refuses a Host header that names somebody else, which redirects would repeat.

    Unlike Starlette's it answers with a Problem and leaves the probes alone: load balancers
    and container engines ask by address.
    """

    def __init__(self, app: ASGIApp, hosts: list[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or is_probe(scope):
            return await self.app(scope, receive, send)
        host = re.sub(r":\d*$", "", Headers(scope=scope).get("host", "")).lower()
        if any(fnmatchcase(host, allowed) for allowed in self.hosts):
            return await self.app(scope, receive, send)
        await problem(400, "The Host header names no host of this API.")(scope, receive, send)
