"""Every request and response: id, headers, body limit, allowed hosts, CORS."""

import re
from collections.abc import AsyncIterator, Callable

import pytest
from conftest import client_of, settings_for
from fastapi import FastAPI, Response
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel
from sqlalchemy import URL
from starlette.types import Message, Receive, Scope, Send

from app.database import DatabaseUnavailable
from app.main import create_app
from app.web.middleware import RequestContext
from app.web.shutdown import Shutdown

SITE = "https://www.example.com"
JSON = {"content-type": "application/json"}
HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Body(BaseModel):
    text: str


def add_routes(app: FastAPI) -> None:
    """Add routes that read a body, fail, or set headers."""

    @app.post("/body")
    async def read(body: Body) -> int:
        return len(body.text)

    @app.post("/upload", max_body_size=2_000_000)
    async def upload(body: Body) -> int:
        return len(body.text)

    @app.get("/bug")
    async def bug() -> None:
        raise KeyError

    @app.get("/down")
    async def down() -> None:
        raise DatabaseUnavailable

    @app.get("/own")
    async def own() -> Response:
        headers = {"Cache-Control": "max-age=60", "Content-Security-Policy": "sandbox"}
        return Response(headers=headers)

    @app.get("/raw")
    async def raw() -> Response:
        response = Response()
        response.raw_headers += [(b"Cache-Control", b"no-cache"), (b"ETag", b'"1"')]
        return response

    @app.get("/tagged")
    async def tagged() -> Response:
        return Response(headers={"ETag": '"1"'})


@pytest.fixture(autouse=True)
def routes(app: FastAPI) -> None:
    add_routes(app)


Configure = Callable[..., FastAPI]


@pytest.fixture
def configure(worker_url: URL) -> Configure:
    """`configure(allowed_hosts=…)`: an application with other settings."""

    def configured(**values: str) -> FastAPI:
        app = create_app(settings_for(worker_url, **values))
        add_routes(app)
        return app

    return configured


# Every origin of a response: a route, a handler, a middleware of the application or of FastAPI.
RESPONSES = [
    ("GET", "/own", {}, "", 200),
    ("GET", "/docs", {}, "", 200),
    ("GET", "/docs/", {}, "", 307),
    ("GET", "/nothing", {}, "", 404),
    ("PUT", "/body", {}, "", 405),
    ("POST", "/body", {}, "{}", 422),
    ("POST", "/body", {}, "x" * 1_000_001, 413),
    ("POST", "/body", {"origin": SITE}, "x" * 1_000_001, 413),
    ("POST", "/body", {"transfer-encoding": "chunked"}, "x" * 1_000_001, 413),
    ("GET", "/down", {}, "", 503),
    ("GET", "/bug", {}, "", 500),
    ("GET", "/own", {"host": "evil.example"}, "", 400),
    ("OPTIONS", "/own", {"origin": SITE, "access-control-request-method": "GET"}, "", 200),
]
NOT_PROBLEMS = {400, 413}  # a middleware of Starlette or FastAPI answers them with text


@pytest.mark.parametrize(("method", "path", "headers", "body", "status"), RESPONSES)
async def test_every_response_has_its_id_and_headers(
    configure: Configure,
    method: str,
    path: str,
    headers: dict[str, str],
    body: str,
    status: int,
) -> None:
    client = client_of(configure(allowed_hosts="test", cors_origins=SITE), raise_bugs=False)
    headers = {"x-request-id": "given"} | headers | JSON
    response = await client.request(method, path, headers=headers, content=body)
    assert response.status_code == status
    assert response.headers.get_list("x-request-id") == ["given"]
    for name, value in HEADERS.items():
        assert len(response.headers.get_list(name)) == 1
        if response.is_error:
            assert response.headers[name] == value
    if response.is_error and status not in NOT_PROBLEMS:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == status
    if status == 500:
        assert response.json()["request_id"] == "given"
    if "origin" in headers:
        assert response.headers["access-control-allow-origin"] == SITE


async def test_headers_of_a_route_win(client: AsyncClient) -> None:
    headers = (await client.get("/own")).headers
    assert headers["cache-control"] == "max-age=60"
    assert headers["content-security-policy"] == "sandbox"
    assert headers["x-content-type-options"] == "nosniff"


async def test_headers_of_a_route_win_in_any_case(client: AsyncClient) -> None:
    """Starlette's own are in lower case, the raw ones of a route may not be."""
    headers = (await client.get("/raw")).headers
    assert headers.get_list("cache-control") == ["no-cache"]


async def test_response_with_an_etag_may_be_stored(client: AsyncClient) -> None:
    assert (await client.get("/tagged")).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_only_https_has_hsts(client: AsyncClient, scheme: str) -> None:
    response = await client.get(f"{scheme}://test/nothing")
    assert ("strict-transport-security" in response.headers) == (scheme == "https")


@pytest.mark.parametrize(
    "given",
    [
        "0b5c8f6e-7c1d-4b0e-9f3a-2d1c0b9a8f7e",
        "Root=1-67891233-abcdef",
        "01JD/a+b_c.d:e",
        "x" * 128,
    ],
)
async def test_well_formed_id_is_kept(client: AsyncClient, given: str) -> None:
    response = await client.get("/nothing", headers={"x-request-id": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize(
    "given", ["", "x" * 129, "a b", 'a"b', "a\tb", "<b>", "a;b", "{a}", "\x1b[31m", "é"]
)
async def test_malformed_id_is_replaced(client: AsyncClient, given: str) -> None:
    headers = [(b"x-request-id", given.encode())]
    first, second = [await client.get("/nothing", headers=headers) for _ in range(2)]
    assert re.fullmatch("[0-9a-f]{32}", first.headers["x-request-id"])
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


async def test_lifespan_passes_untouched() -> None:
    seen: list[object] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([scope, receive, send])

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None: ...

    scope = {"type": "lifespan"}
    await RequestContext(inner, Shutdown(0))(scope, receive, send)
    assert seen == [scope, receive, send]


async def test_body_of_the_limit_is_accepted(client: AsyncClient) -> None:
    text = "x" * (1_000_000 - len('{"text":""}'))
    response = await client.post("/body", json={"text": text})
    assert (response.status_code, response.json()) == (200, len(text))


@pytest.mark.parametrize("path", ["/body", "/nothing"])
async def test_body_declared_over_the_limit_is_not_read(client: AsyncClient, path: str) -> None:
    read = []

    async def chunks() -> AsyncIterator[bytes]:
        read.append(1)
        yield b"x" * 1_000_001

    headers = JSON | {"content-length": "1000001"}
    response = await client.post(path, content=chunks(), headers=headers)
    assert response.status_code == 413
    assert read == []


async def test_body_that_grows_over_the_limit_is_read_no_further(client: AsyncClient) -> None:
    read = []

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(100):
            read.append(number)
            yield b"x" * 100_000

    response = await client.post("/body", content=chunks(), headers=JSON)
    assert response.status_code == 413
    assert len(read) == 11


async def test_route_may_have_its_own_limit(client: AsyncClient) -> None:
    for length, status in {1_500_000: 200, 2_000_000: 413}.items():
        response = await client.post("/upload", json={"text": "x" * length})
        assert response.status_code == status


async def test_limit_is_a_setting(configure: Configure) -> None:
    client = client_of(configure(max_body_size="100"), raise_bugs=False)
    for length, status in {50: 200, 100: 413}.items():
        response = await client.post("/body", json={"text": "x" * length})
        assert response.status_code == status


async def test_by_default_any_host_and_no_other_site(client: AsyncClient) -> None:
    headers = {"host": "anybody.example.net", "origin": SITE}
    response = await client.get("/docs", headers=headers)
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("api.example.com", 200),
        ("API.example.com:8000", 200),
        ("eu.example.org", 200),
        ("example.org", 400),
        ("api.example.com.evil.example", 400),
        ("evil.example", 400),
        ("evil.example/x.example.org", 400),
        ("evil.example?.example.org", 400),
        ("", 400),
        ("[::1]:8000", 400),
    ],
)
async def test_other_hosts_are_refused(configure: Configure, host: str, status: int) -> None:
    client = client_of(configure(allowed_hosts="api.example.com, *.example.org"), raise_bugs=False)
    response = await client.get("/docs", headers={"host": host})
    assert response.status_code == status


async def test_redirect_repeats_no_other_host(configure: Configure) -> None:
    client = client_of(configure(allowed_hosts="api.example.com"), raise_bugs=False)
    for path in ("/docs/", "/health/live/"):
        response = await client.get(path, headers={"host": "evil.example"})
        assert response.status_code == 400


async def test_probes_come_by_address(configure: Configure) -> None:
    client = client_of(configure(allowed_hosts="api.example.com"), raise_bugs=False)
    for path in ("/health/live", "/health/ready"):
        response = await client.get(path, headers={"host": "10.0.0.7:8000"})
        assert response.status_code != 400


async def test_probes_are_known_below_a_prefix(configure: Configure) -> None:
    app = configure(allowed_hosts="api.example.com")
    transport = ASGITransport(app, root_path="/api")
    async with AsyncClient(transport=transport, base_url="http://10.0.0.7") as client:
        assert (await client.get("/api/health/live")).status_code == 200
        assert (await client.get("/api/docs")).status_code == 400


@pytest.mark.parametrize(("origin", "allowed"), [(SITE, SITE), ("https://evil.example", None)])
async def test_only_listed_sites_may_call(
    configure: Configure, origin: str, allowed: str | None
) -> None:
    client = client_of(configure(cors_origins=SITE), raise_bugs=False)
    asked = {
        "origin": origin,
        "access-control-request-method": "PATCH",
        "access-control-request-headers": "authorization",
    }
    preflight = await client.options("/docs", headers=asked)
    assert preflight.status_code == (200 if allowed else 400)
    assert preflight.headers.get("access-control-allow-origin") == allowed
    response = await client.get("/docs", headers={"origin": origin})
    assert response.headers.get("access-control-allow-origin") == allowed
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("path", ["/own", "/bug"])
async def test_listed_site_can_read_the_id(configure: Configure, path: str) -> None:
    client = client_of(configure(cors_origins=SITE), raise_bugs=False)
    response = await client.get(path, headers={"origin": SITE})
    assert response.headers["access-control-allow-origin"] == SITE
    assert response.headers["access-control-expose-headers"] == "X-Request-ID"
