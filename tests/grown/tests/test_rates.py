"""Rates, with a stand-in for the other service."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from app.rates.client import get_client


def answer(request: httpx.Request) -> httpx.Response:
    match request.url.path:
        case "/rates/EUR":
            return httpx.Response(200, json={"rate": "1.08"})
        case "/rates/CHF":
            return httpx.Response(200, json={"rate": "none"})
        case "/rates/GBP":
            raise httpx.ConnectTimeout("too late")
    return httpx.Response(404)


@pytest.fixture(autouse=True)
async def service(app: FastAPI) -> AsyncIterator[None]:
    """Replace the client of the lifespan by one that reaches no other service."""
    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://rates.test") as rates:
        app.dependency_overrides[get_client] = lambda: rates
        yield


async def test_rate_is_read(client: httpx.AsyncClient) -> None:
    response = await client.get("/rates/EUR")
    assert (response.status_code, response.json()) == (200, {"currency": "EUR", "rate": "1.08"})


@pytest.mark.parametrize("currency", ["CHF", "GBP", "USD"])
async def test_failure_of_the_other_service_is_502(
    client: httpx.AsyncClient, currency: str
) -> None:
    response = await client.get(f"/rates/{currency}")
    assert response.status_code == 502
    assert response.headers["content-type"] == "application/problem+json"


async def test_client_of_the_lifespan_calls_the_address_of_the_settings(
    served_app: FastAPI,
) -> None:
    assert served_app.state.rates.base_url == str(served_app.state.settings.rates_url)
