"""The bodies of requests and responses."""

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.models.product import Unit
from app.types import Id, Text

Price = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]


class Priced(BaseModel):
    """One line of a price list."""

    sku: Annotated[Text, Field(min_length=1, max_length=40)]
    name: Annotated[Text, Field(min_length=1, max_length=200)]
    price: Price
    unit: Unit


class ProductRead(BaseModel):
    """A stored product."""

    model_config = ConfigDict(from_attributes=True)

    id: Id
    sku: str
    name: str
    price: Decimal
    unit: Unit


class Imported(BaseModel):
    """The result of an upload."""

    products: int
