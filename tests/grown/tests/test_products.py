"""Products and their upload over HTTP."""

import pytest
from factories import PRICES, upload_prices
from httpx import AsyncClient


async def test_upload_adds_and_updates_products(client: AsyncClient) -> None:
    products = await upload_prices(client)
    assert products["pen"]["price"] == "30.00"
    assert products["help"]["unit"] == "hour"
    changed = await upload_prices(client, PRICES.replace("30.00", "28.90"))
    assert changed["pen"] == products["pen"] | {"price": "28.90"}
    assert changed["help"] == products["help"]


@pytest.mark.parametrize(
    ("wrong", "detail"),
    [
        (PRICES.replace("30.00", "cheap"), "Line 2 has a wrong price."),
        (PRICES.replace("hour", "year"), "Line 3 has a wrong unit."),
    ],
)
async def test_wrong_price_list_is_refused(client: AsyncClient, wrong: str, detail: str) -> None:
    response = await client.post("/products/import", files={"file": wrong})
    assert (response.status_code, response.json()["detail"]) == (422, detail)
    assert (await client.get("/products")).json() == []
