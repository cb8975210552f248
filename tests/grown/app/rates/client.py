"""The client of the service with the rates."""

from decimal import Decimal
from typing import Annotated

from fastapi import Depends
from fastapi.requests import HTTPConnection
from httpx import AsyncClient, HTTPError

from app.errors import AppError


class RatesUnavailable(AppError):
    """The other service does not answer, or not with a rate."""

    status = 502


async def get_client(connection: HTTPConnection) -> AsyncClient:
    client: AsyncClient = connection.app.state.rates
    return client


Rates = Annotated[AsyncClient, Depends(get_client)]


async def get_rate(client: AsyncClient, currency: str) -> Decimal:
    """Return the price of one unit. Raises RatesUnavailable."""
    try:
        response = await client.get(f"/rates/{currency}")
        return Decimal(response.raise_for_status().json()["rate"])
    except (HTTPError, ValueError, KeyError, ArithmeticError) as error:
        raise RatesUnavailable("The exchange rates cannot be read now.") from error
