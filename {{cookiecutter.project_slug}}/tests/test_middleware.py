"""What the settings `allowed_hosts` and `cors_origins` let through."""

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app import middleware
from app.config import Settings

SITE = "https://www.example.com"


def configure(app: FastAPI, **values: str) -> None:
    middleware.install(app, Settings(**values))


async def test_any_host_and_no_other_site_by_default(client: AsyncClient) -> None:
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
        ("api.example.com.evil.net", 400),
        ("evil.net", 400),
        ("", 400),
        ("[::1]:8000", 400),
    ],
)
async def test_other_hosts_are_refused(
    app: FastAPI, client: AsyncClient, host: str, status: int
) -> None:
    configure(app, allowed_hosts="api.example.com, *.example.org")
    response = await client.get("/docs", headers={"host": host})
    assert response.status_code == status
    if status == 400:
        assert response.headers["content-type"] == "application/problem+json"


async def test_a_redirect_repeats_no_other_host(app: FastAPI, client: AsyncClient) -> None:
    configure(app, allowed_hosts="api.example.com")
    response = await client.get("/docs/", headers={"host": "evil.net"})
    assert response.status_code == 400


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_probes_come_by_address(app: FastAPI, client: AsyncClient, path: str) -> None:
    configure(app, allowed_hosts="api.example.com")
    response = await client.get(path, headers={"host": "10.0.0.7:8000"})
    assert response.status_code == 200


@pytest.mark.parametrize(("origin", "allowed"), [(SITE, SITE), ("https://evil.net", None)])
async def test_sites_that_may_call(
    app: FastAPI, client: AsyncClient, origin: str, allowed: str | None
) -> None:
    configure(app, cors_origins=SITE)
    asked = {"origin": origin, "access-control-request-method": "GET"}
    preflight = await client.options("/docs", headers=asked)
    assert preflight.status_code == (200 if allowed else 400)
    assert preflight.headers.get("access-control-allow-origin") == allowed
    response = await client.get("/docs", headers={"origin": origin})
    assert response.headers.get("access-control-allow-origin") == allowed
    assert "access-control-allow-credentials" not in response.headers
