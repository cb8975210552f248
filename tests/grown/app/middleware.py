"""Middleware of this project."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ApiVersion:
    """Names the version of the API in every response."""

    def __init__(self, app: ASGIApp, version: str) -> None:
        self.app, self.version = app, version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["api-version"] = self.version
            await send(message)

        await self.app(scope, receive, send_with_version)
