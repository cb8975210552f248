"""What a request passes before it reaches a route, if the settings ask for it."""

import re
from fnmatch import fnmatchcase

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.config import Settings
from app.disconnect import CancelOnDisconnect
from app.errors import problem


def install(app: FastAPI, settings: Settings) -> None:
    """Add what holds for every request, and what the settings name."""
    app.add_middleware(CancelOnDisconnect)
    if settings.allowed_hosts:
        app.add_middleware(AllowedHosts, hosts=settings.allowed_hosts)
    if settings.cors_origins:  # without cookies: a token in a header works
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
        )


class AllowedHosts:
    """Refuses a Host header that names somebody else, which redirects would repeat.

    Unlike Starlette's it answers with a Problem and leaves the probes alone: load balancers
    and container engines ask by address.
    """

    def __init__(self, app: ASGIApp, hosts: list[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"].startswith("/health/"):
            return await self.app(scope, receive, send)
        host = re.sub(r":\d*$", "", Headers(scope=scope).get("host", "")).lower()
        if any(fnmatchcase(host, allowed) for allowed in self.hosts):
            return await self.app(scope, receive, send)
        await problem(400, "The Host header names no host of this API.")(scope, receive, send)
