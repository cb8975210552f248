"""What holds for every request and response."""

import logging
import re

import pytest
from conftest import client_of, settings_for
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import URL

from app.main import create_app

SITE = "https://www.example.com"


@pytest.fixture
def restricted_client(worker_url: URL) -> AsyncClient:
    """A client of an application with one host and one site that may call it."""
    return client_of(create_app(settings_for(worker_url, allowed_hosts="test", cors_origins=SITE)))


@pytest.fixture
def client(app: FastAPI) -> AsyncClient:
    """A client that receives a 500 for a bug."""
    return client_of(app, raise_bugs=False)


@pytest.fixture(autouse=True)
def routes(app: FastAPI) -> None:
    @app.get("/pytest")
    async def bug() -> None:
        raise RuntimeError


@pytest.mark.parametrize("path", ["/health/live", "/unknown", "/pytest"])
async def test_response_has_security_headers_and_an_id(client: AsyncClient, path: str) -> None:
    response = await client.get(f"https://test{path}")
    expected = {
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
        "strict-transport-security": "max-age=31536000",
        "x-content-type-options": "nosniff",
    }
    assert response.headers.items() >= expected.items()
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    response = await client.get(path, headers={"x-request-id": "of-the-client"})
    assert response.headers["x-request-id"] == "of-the-client"
    if response.status_code == 500:
        assert response.json()["request_id"] == "of-the-client"


async def test_request_is_logged_without_its_query(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="app.access")
    await client.get("/unknown?token=secret")
    (line,) = [vars(record) for record in caplog.records if record.name == "app.access"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/unknown", 404)
    assert line["duration_ms"] > 0
    assert "secret" not in str(line)


async def test_body_over_the_limit_is_413(client: AsyncClient) -> None:
    response = await client.post("/unknown", json={"text": "x" * 1_000_000})
    assert response.status_code == 413


async def test_unknown_host_is_refused(restricted_client: AsyncClient) -> None:
    for host, status in {"test": 200, "evil.example": 400}.items():
        response = await restricted_client.get("/docs", headers={"host": host})
        assert response.status_code == status
    response = await restricted_client.get("/health/live", headers={"host": "10.0.0.7"})
    assert response.status_code == 200  # a probe comes by address


async def test_only_listed_sites_may_call(restricted_client: AsyncClient) -> None:
    for origin, allowed in {SITE: SITE, "https://evil.example": None}.items():
        response = await restricted_client.get("/docs", headers={"origin": origin})
        assert response.headers.get("access-control-allow-origin") == allowed


async def test_docs_page_works_without_the_internet(client: AsyncClient) -> None:
    page = (await client.get("/docs")).text
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert loaded
    for address in loaded:  # an address of another server is an unknown path here
        assert (await client.get(f"/{address}")).status_code == 200


async def test_openapi_shows_every_error_as_a_problem(app: FastAPI) -> None:
    operations = [each for path in app.openapi()["paths"].values() for each in path.values()]
    assert operations
    for operation in operations:
        errors = {key: each for key, each in operation["responses"].items() if key >= "400"}
        assert "500" in errors
        errors.pop("413", None)  # FastAPI answers it with plain text
        for error in errors.values():
            content = error["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
