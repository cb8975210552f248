"""/docs works without the internet."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import PurePath

import pytest
from conftest import client_of, settings_for
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import URL
from starlette.middleware.gzip import GZipMiddleware

from app.main import create_app

TYPES = {
    ".css": {"text/css"},
    ".png": {"image/png"},
    ".js": {"text/javascript", "application/javascript"},
    ".json": {"application/json"},
}


async def test_page_loads_files_of_this_server(client: AsyncClient) -> None:
    page = (await client.get("/docs")).text
    loaded = re.findall(r"""(?:src|href|url)(?:=|: ?)["']([^"']+)""", page)
    assert [PurePath(address).suffix for address in loaded] == list(TYPES)
    assert not any(address.startswith("/") for address in loaded)  # a proxy may add a prefix
    for address, types in zip(loaded, TYPES.values(), strict=True):
        response = await client.get(f"/{address}")
        assert response.status_code == 200
        assert response.headers["content-type"].split(";")[0] in types
        assert response.content


async def test_page_names_no_other_server(client: AsyncClient) -> None:
    page = await client.get("/docs")
    assert re.findall(r"""["'(](?:[a-z]+:)?//""", page.text) == []
    assert "http" not in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]


async def test_page_may_run_its_own_script_only(client: AsyncClient) -> None:
    """Browsers compare the hash of an inline script with the policy."""
    page = await client.get("/docs")
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert page.headers["content-security-policy"].split("; ") == [
        "default-src 'none'",
        f"script-src 'self' 'sha256-{digest}'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]


async def test_browser_revalidates_a_file(client: AsyncClient) -> None:
    response = await client.get("/docs/assets/swagger-ui.css")
    assert response.headers["cache-control"] == "no-cache"
    headers = {"if-none-match": response.headers["etag"]}
    assert (await client.get("/docs/assets/swagger-ui.css", headers=headers)).status_code == 304


@pytest.mark.parametrize("name", ["nothing.js", "../main.py", "%2e%2e/main.py"])
async def test_no_other_file_is_served(client: AsyncClient, name: str) -> None:
    response = await client.get(f"/docs/assets/{name}")
    assert response.status_code == 404


async def test_no_other_page_is_served(client: AsyncClient) -> None:
    """ReDoc's page loads its files from the internet."""
    assert (await client.get("/redoc")).status_code == 404


async def test_openapi_does_not_list_the_page(app: FastAPI) -> None:
    assert [path for path in app.openapi()["paths"] if "docs" in path] == []


async def test_docs_can_be_switched_off(worker_url: URL) -> None:
    client = client_of(create_app(settings_for(worker_url, api_docs=False)))
    for path in ("/docs", "/openapi.json", "/docs/assets/swagger-ui.css"):
        assert (await client.get(path)).status_code == 404


async def test_page_survives_a_middleware_that_changes_headers(app: FastAPI) -> None:
    """A response of one request must not be that of the next one."""
    app.add_middleware(GZipMiddleware)
    async with client_of(app) as client:
        first, second = [await client.get("/docs") for _ in range(2)]
    assert first.text == second.text
    assert first.headers["content-encoding"] == second.headers["content-encoding"] == "gzip"
