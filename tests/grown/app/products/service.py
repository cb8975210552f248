"""Queries and rules. The caller owns the transaction."""

import csv
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import Reader
from app.errors import Unprocessable
from app.models.product import Product
from app.products.schemas import Priced

LIST = select(Product).order_by(Product.sku)
PRICES = TypeAdapter(list[Priced])


async def get_all(reader: Reader) -> Sequence[Any]:
    return await reader.rows(LIST)


def parse(lines: Iterable[str]) -> list[Priced]:
    """Return the lines of a price list. Raises Unprocessable."""
    try:
        return PRICES.validate_python(list(csv.DictReader(lines)))
    except csv.Error as error:
        raise Unprocessable(f"The file is no CSV: {error}.") from error
    except ValidationError as error:
        line, field, *_ = error.errors()[0]["loc"]
        raise Unprocessable(f"Line {int(line) + 2} has a wrong {field}.") from None


async def store(session: AsyncSession, prices: list[Priced]) -> int:
    """Add the products, or update those with the same SKU."""
    if not prices:
        return 0
    insertion = insert(Product).values([price.model_dump() for price in prices])
    new = {name: insertion.excluded[name] for name in ("name", "price", "unit")}
    await session.execute(insertion.on_conflict_do_update(index_elements=["sku"], set_=new))
    return len(prices)
