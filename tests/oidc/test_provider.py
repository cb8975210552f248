"""A provider that rotates its keys, is slow or down, or answers garbage."""

import asyncio
import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from itertools import count
from threading import Event
from time import monotonic
from typing import Any

import pytest
from access_tokens import claims_for, sign
from conftest import client_of, settings_for
from fastapi import FastAPI
from httpx import AsyncClient
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from sqlalchemy import URL

from app.main import create_app
from app.oidc import provider as module
from app.oidc.provider import Provider as Fetcher
from oidc.conftest import DISCOVERY, EC, JWKS, RSA, Provider, new_key, status_of, write

ATTEMPT = [DISCOVERY, JWKS]  # the requests of one attempt


def break_it(handler: BaseHTTPRequestHandler) -> None:
    write(handler, b"", 500)


async def test_keys_are_fetched_once_for_requests_at_once(
    client: AsyncClient, provider: Provider, token: str
) -> None:
    statuses = await asyncio.gather(*(status_of(client, token) for _ in range(50)))
    assert Counter(statuses) == {200: 50}
    assert provider.requests == ATTEMPT


async def test_unknown_keys_are_no_flood_of_requests(
    app: FastAPI, client: AsyncClient, provider: Provider, fetcher: Fetcher, token: str
) -> None:
    forged = [sign(claims_for(app), EC, kid=f"no{n}") for n in range(300)]
    statuses = await asyncio.gather(*(status_of(client, each) for each in [*forged, token]))
    assert Counter(statuses) == {401: 300, 200: 1}
    assert provider.requests == ATTEMPT
    fetcher.next_attempt = 0  # the pause is over
    statuses = await asyncio.gather(*(status_of(client, each) for each in [*forged, token]))
    assert Counter(statuses) == {401: 300, 200: 1}
    assert provider.requests == ATTEMPT * 2
    assert fetcher.next_attempt > monotonic() + 4


async def test_rotation_under_load_refuses_no_good_token(
    app: FastAPI, client: AsyncClient, provider: Provider, fetcher: Fetcher
) -> None:
    """The clients get tokens of the newest key while the old keys go one by one."""
    published: list[RSAKey | ECKey] = [RSA]
    provider.publish(*published)
    answered: asyncio.Queue[int] = asyncio.Queue()

    async def use() -> None:
        while True:
            answered.put_nowait(await status_of(client, sign(claims_for(app), published[-1])))

    users = [asyncio.create_task(use()) for _ in range(10)]
    statuses = [await answered.get() for _ in range(20)]
    for number in range(5):
        new = ECKey.generate_key("P-256", {"kid": f"key{number}", "alg": "ES256"})
        provider.publish(new, published[-1])
        fetcher.next_attempt = 0
        published.append(new)
        statuses += [await answered.get() for _ in range(20)]
    for user in users:
        user.cancel()
    print(f"{len(statuses)} requests, {len(provider.requests)} of them to the provider")
    assert set(statuses) == {200}
    assert provider.requests == ATTEMPT * 6
    assert await status_of(client, sign(claims_for(app), RSA)) == 401


async def test_key_that_the_provider_drops_ends_within_its_age(
    client: AsyncClient, provider: Provider, fetcher: Fetcher, token: str
) -> None:
    assert await status_of(client, token) == 200
    assert 590 < fetcher.fresh_until - monotonic() <= 600
    provider.publish(EC)
    assert await status_of(client, token) == 200
    fetcher.fresh_until = fetcher.next_attempt = 0
    assert await status_of(client, token) == 200  # it does not wait for the new keys
    assert fetcher.attempt
    await fetcher.attempt
    assert await status_of(client, token) == 401


async def test_known_keys_outlive_the_provider(
    app: FastAPI, client: AsyncClient, provider: Provider, fetcher: Fetcher, token: str
) -> None:
    assert await status_of(client, token) == 200
    provider.answer = break_it
    fetcher.fresh_until = fetcher.next_attempt = 0
    unknown = sign(claims_for(app), EC, kid="new")
    assert await status_of(client, unknown) == 503  # it may be right
    assert [await status_of(client, token) for _ in range(3)] == [200] * 3
    assert provider.requests == [*ATTEMPT, DISCOVERY]  # the pause holds for failures too
    provider.answer, fetcher.next_attempt = None, 0
    assert await status_of(client, unknown) == 401


async def test_provider_that_is_down_at_the_start_comes_later(
    client: AsyncClient, provider: Provider, fetcher: Fetcher, token: str
) -> None:
    provider.answer = break_it
    statuses = await asyncio.gather(*(status_of(client, token) for _ in range(50)))
    assert Counter(statuses) == {503: 50}
    assert provider.requests == [DISCOVERY]
    provider.answer, fetcher.next_attempt = None, 0
    assert await status_of(client, token) == 200


async def test_provider_that_refuses_connections_is_a_503(
    client: AsyncClient, fetcher: Fetcher, token: str
) -> None:
    fetcher.issuer = "http://127.0.0.1:1"
    assert await status_of(client, token) == 503


async def test_docs_get_the_endpoints_of_the_provider(worker_url: URL, provider: Provider) -> None:
    settings = settings_for(worker_url, oidc_issuer=provider.url, oidc_docs_client_id="docs")
    async with client_of(create_app(settings)) as client:
        provider.metadata |= {"authorization_endpoint": "https://a/", "secret": 1}
        assert (await client.get("/docs/openid-configuration")).status_code == 503
    provider.metadata |= {"token_endpoint": "https://b/", "grant_types_supported": ["implicit"]}
    async with client_of(create_app(settings)) as client:
        responses = [await client.get("/docs/openid-configuration") for _ in range(3)]
    assert responses[2].json() == {
        "issuer": provider.url,
        "authorization_endpoint": "https://a/",
        "token_endpoint": "https://b/",
        "grant_types_supported": ["authorization_code"],
        "scopes_supported": ["openid"],
    }
    assert provider.requests == ATTEMPT * 2


async def test_request_that_is_cancelled_ends_no_other(
    client: AsyncClient, provider: Provider, token: str
) -> None:
    """They wait for one attempt."""
    asked, go_on = Event(), Event()

    def wait(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        assert go_on.wait(5)
        provider.answer = None
        provider.respond(handler)

    provider.answer = wait
    first, second = (asyncio.create_task(status_of(client, token)) for _ in range(2))
    assert await asyncio.to_thread(asked.wait, 5)
    first.cancel()
    go_on.set()
    assert await second == 200
    assert provider.requests == ATTEMPT


async def test_slow_provider_delays_no_known_key(
    app: FastAPI,
    client: AsyncClient,
    provider: Provider,
    fetcher: Fetcher,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await status_of(client, token) == 200
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    end = Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not end.wait(0.02):  # each part comes within the limit of a part
            handler.wfile.write(b" ")

    provider.answer, fetcher.next_attempt = drip, 0
    waiting = asyncio.create_task(status_of(client, sign(claims_for(app), EC, kid="new")))
    began = monotonic()
    for _ in range(20):
        assert await status_of(client, token) == 200
    assert not waiting.done()
    assert await waiting == 503
    assert monotonic() - began < 2
    end.set()


def send(body: bytes, status: int = 200, **headers: str) -> Callable[..., None]:
    return lambda handler: write(handler, body, status, **headers)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in count():
        handler.wfile.write(b" " * 65536)


def after_metadata(provider: Provider, answer: Callable[..., None]) -> Callable[..., None]:
    """Answer garbage to the second request only."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        metadata = json.dumps(provider.metadata).encode()
        write(handler, metadata) if handler.path == DISCOVERY else answer(handler)

    return respond


GARBAGE = {
    "HTML": send(b"<html>hunter2</html>", content_type="text/html"),
    "nothing": send(b""),
    "no keys": send(b'{"keys": []}'),
    "a list": send(b"[]"),
    "a number": send(b"1"),
    "half of JSON": send(b'{"keys": ['),
    "not UTF-8": send(b'{"keys": "\xff"}'),
    "nested": send(b'{"keys":' + b"[" * 100_000),
    "a long number": send(b'{"keys":' + b"9" * 10_000 + b"}"),
    "compressed": send(b"\x1f\x8b\x08", content_encoding="gzip"),
    "endless": endless,
    "500": send(b"{}", 500),
    "404": send(b"{}", 404),
    "a redirect": send(b"", 302, location="http://127.0.0.1:1/"),
    "another protocol": lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n"),
    "a closed connection": lambda handler: None,
}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("second", [False, True], ids=["metadata", "keys"])
async def test_garbage_is_a_503_and_keeps_known_keys(
    app: FastAPI,
    client: AsyncClient,
    provider: Provider,
    fetcher: Fetcher,
    token: str,
    caplog: pytest.LogCaptureFixture,
    name: str,
    second: bool,
) -> None:
    answer = GARBAGE[name]
    provider.answer = after_metadata(provider, answer) if second else answer
    assert await status_of(client, token) == 503
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert line.getMessage().startswith(f"The identity provider {provider.url} cannot be used: ")
    assert "\n" not in line.getMessage()
    assert "hunter2" not in caplog.text
    good, provider.answer, fetcher.next_attempt = provider.answer, None, 0
    assert await status_of(client, token) == 200
    provider.answer, fetcher.fresh_until, fetcher.next_attempt = good, 0, 0
    assert await status_of(client, token) == 200


METADATA: list[dict[str, Any]] = [
    {"issuer": "https://evil.example.com"},
    {"issuer": "{}/"},
    {"issuer": None},
    {"issuer": ["{}"]},
    {"jwks_uri": None},
    {"jwks_uri": "http://keys.example.com/"},
    {"jwks_uri": "file:///etc/passwd"},
    {"jwks_uri": "https://"},
    {"jwks_uri": "https://["},
    {"jwks_uri": "http://127.0.0.1:1"},
    {"jwks_uri": "http://127.0.0.1:99999/"},
    {"jwks_uri": 1},
    {"large": "x" * 600_000},
]


@pytest.mark.parametrize("change", METADATA, ids=lambda change: str(change)[:40])
async def test_wrong_metadata_is_a_503(
    client: AsyncClient,
    provider: Provider,
    token: str,
    change: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = json.dumps(change).replace("{}", provider.url)
    provider.metadata |= json.loads(text)
    assert await status_of(client, token) == 503
    assert JWKS not in provider.requests


USELESS: dict[str, Any] = {
    "symmetric": OctKey.import_key("secret" * 8, {"kid": "rsa", "alg": "HS256"}).as_dict(),
    "symmetric, as RSA": {"kty": "RSA", "kid": "rsa", "k": "c2VjcmV0"},
    "private": RSA.as_dict(private=True),
    "for encryption": RSA.as_dict(private=False) | {"use": "enc"},
    "for another algorithm": RSA.as_dict(private=False) | {"alg": "RS512"},
    "to sign only": {k: v for k, v in RSA.as_dict(private=False).items() if k != "use"}
    | {"key_ops": ["sign"]},
    "without an id": {k: v for k, v in RSA.as_dict(private=False).items() if k != "kid"},
    "with a number as its id": RSA.as_dict(private=False) | {"kid": 1},
    "with an exponent of 1": RSA.as_dict(private=False) | {"e": "AQ"},
    "with an even modulus": RSA.as_dict(private=False) | {"n": "g" * 342},
    "without a modulus": {"kty": "RSA", "kid": "rsa", "e": "AQAB"},
    "not on the curve": EC.as_dict(private=False) | {"x": "AAAA", "kid": "rsa"},
    "of an unknown curve": EC.as_dict(private=False) | {"crv": "P-1", "kid": "rsa"},
    "of an unknown type": {"kty": "AKP", "kid": "rsa"},
    "of a list as its type": {"kty": ["RSA"], "kid": "rsa"},
    "for key agreement": OKPKey.generate_key("X25519", {"kid": "rsa"}).as_dict(private=False),
    "a text": "rsa",
    "nothing": None,
    "a number in base64": RSA.as_dict(private=False) | {"n": 5},
    "nested": {"kty": "RSA", "kid": "rsa", "n": ["x"] * 400, "e": {}},
    "with operations that are no list": {
        **{k: v for k, v in RSA.as_dict(private=False).items() if k != "use"},
        "key_ops": 5,
    },
}


@pytest.mark.parametrize("name", USELESS)
async def test_useless_key_is_as_unknown_and_breaks_no_other(
    app: FastAPI, client: AsyncClient, provider: Provider, token: str, name: str
) -> None:
    provider.keys = [USELESS[name], EC.as_dict(private=False)]
    assert await status_of(client, sign(claims_for(app), EC)) == 200
    assert await status_of(client, token) == 401


async def test_small_key_signs_nothing(
    app: FastAPI, client: AsyncClient, provider: Provider
) -> None:
    with warnings.catch_warnings(action="ignore"):
        small = new_key("small", 1024)
    provider.publish(EC, small)
    assert await status_of(client, sign(claims_for(app), small)) == 401
    assert await status_of(client, sign(claims_for(app), EC)) == 200


async def test_symmetric_key_signs_nothing(
    app: FastAPI, client: AsyncClient, provider: Provider
) -> None:
    key = OctKey.import_key("secret" * 8, {"kid": "oct", "alg": "HS256"})
    provider.keys.append(key.as_dict(private=True))
    assert await status_of(client, sign(claims_for(app), key)) == 401


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        *[(name, new_key("new")) for name in ("RS384", "RS512", "PS256", "PS384", "PS512")],
        ("ES384", ECKey.generate_key("P-384", {"kid": "new"})),
        ("ES512", ECKey.generate_key("P-521", {"kid": "new"})),
        ("Ed25519", OKPKey.generate_key("Ed25519", {"kid": "new"})),
    ],
)
async def test_asymmetric_algorithms_are_accepted(
    app: FastAPI, client: AsyncClient, provider: Provider, algorithm: str, key: Any
) -> None:
    """Also of a key that names no algorithm, as Entra's."""
    public = {k: v for k, v in key.as_dict(private=False).items() if k != "alg"}
    provider.keys = [public]
    private = type(key).import_key({**key.as_dict(private=True), "alg": algorithm})
    assert await status_of(client, sign(claims_for(app), private)) == 200


async def test_eddsa_is_accepted_by_its_old_name(
    app: FastAPI, client: AsyncClient, provider: Provider
) -> None:
    key = OKPKey.generate_key("Ed25519", {"kid": "new"})
    provider.keys = [key.as_dict(private=False) | {"alg": "EdDSA"}]
    with warnings.catch_warnings(action="ignore"):  # the library prefers the new name
        token = sign(claims_for(app), key, alg="EdDSA")
    assert await status_of(client, token) == 200
