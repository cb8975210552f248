"""An identity provider on loopback that does what a test tells it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from access_tokens import claims_for, sign
from conftest import settings_for
from fastapi import FastAPI
from httpx import AsyncClient
from joserfc.jwk import ECKey, RSAKey
from sqlalchemy import URL

from app.main import create_app
from app.oidc.provider import Provider as Fetcher

DISCOVERY, JWKS = "/.well-known/openid-configuration", "/jwks"


def new_key(kid: str, size: int = 2048) -> RSAKey:
    return RSAKey.generate_key(size, {"kid": kid, "alg": "RS256", "use": "sig"})


RSA = new_key("rsa")
EC = ECKey.generate_key("P-256", {"kid": "ec", "alg": "ES256", "use": "sig"})


@dataclass
class Provider:
    """A test changes `metadata` and `keys`, or has `answer` write the response itself."""

    url: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    keys: list[Any] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None

    def publish(self, *keys: Any) -> None:
        self.keys = [key.as_dict(private=False) for key in keys]

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        if self.answer:
            self.answer(handler)
        elif handler.path in (DISCOVERY, JWKS):
            found = self.metadata if handler.path == DISCOVERY else {"keys": self.keys}
            write(handler, json.dumps(found).encode())
        else:
            handler.send_error(404)


def write(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


class Handler(BaseHTTPRequestHandler):
    def __init__(self, provider: Provider, *arguments: Any) -> None:
        self.provider = provider
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.provider.requests.append(self.path)
        try:
            self.provider.respond(self)
        except OSError:  # the client has gone
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


class HTTPServer(ThreadingHTTPServer):
    request_queue_size = 100


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A provider with the keys RSA and EC."""
    provider = Provider()
    with HTTPServer(("127.0.0.1", 0), partial(Handler, provider)) as server:
        provider.url = f"http://127.0.0.1:{server.server_port}"
        provider.metadata = {"issuer": provider.url, "jwks_uri": provider.url + JWKS}
        provider.publish(RSA, EC)
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield provider
        server.shutdown()
        thread.join()


@pytest.fixture
async def app(app: FastAPI, worker_url: URL, provider: Provider) -> AsyncIterator[FastAPI]:
    """The application of the provider's API."""
    new = create_app(settings_for(worker_url, oidc_issuer=provider.url))
    new.state.database = app.state.database
    yield new
    if attempt := new.state.oidc.provider.attempt:
        await asyncio.wait([attempt])  # the end of the loop would break a connection's start


@pytest.fixture
def fetcher(app: FastAPI) -> Fetcher:
    """The keys as the application knows them."""
    fetcher: Fetcher = app.state.oidc.provider
    return fetcher


@pytest.fixture
def token(app: FastAPI) -> str:
    """A token that the application accepts."""
    return sign(claims_for(app), RSA)


async def status_of(client: AsyncClient, token: str) -> int:
    response = await client.get("/items", headers={"authorization": f"Bearer {token}"})
    if response.status_code == 401:
        assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    if response.status_code == 503:
        assert response.headers["retry-after"] == "5"
        assert response.headers["content-type"] == "application/problem+json"
    return response.status_code
