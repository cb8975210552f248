"""HTTP for rates."""

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel

from app.rates.client import Rates, get_rate
from app.web.openapi import responses

router = APIRouter(prefix="/rates", tags=["rates"], responses=responses(502))


class Rate(BaseModel):
    """The price of one unit of a currency."""

    currency: str
    rate: Decimal


@router.get("/{currency}")
async def read(currency: Annotated[str, Path(pattern="^[A-Z]{3}$")], client: Rates) -> Rate:
    return Rate(currency=currency, rate=await get_rate(client, currency))
