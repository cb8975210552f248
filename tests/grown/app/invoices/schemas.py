"""The bodies of requests and responses."""

from decimal import Decimal
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.models.invoice import Status
from app.types import Id, Moment, Text

Quantity = Annotated[Decimal, Field(gt=0, max_digits=10, decimal_places=3)]


class LineCreate(BaseModel):
    """A new line. The product gives its price."""

    product_id: Id
    quantity: Quantity


class InvoiceCreate(BaseModel):
    """A new invoice."""

    customer_id: UUID
    due_at: Moment | None = None
    lines: list[LineCreate] = Field(min_length=1, max_length=100)
    tags: list[Annotated[Text, Field(min_length=1, max_length=50)]] = Field(
        default_factory=list, max_length=20
    )


class Read(BaseModel):
    """The base of the schemas below."""

    model_config = ConfigDict(from_attributes=True)


class CustomerName(Read):
    """The customer of an invoice."""

    id: UUID
    name: str


class LineRead(Read):
    """One line."""

    position: int
    product_id: Id
    quantity: Decimal
    price: Decimal


class TagRead(Read):
    """One tag."""

    name: str


class InvoiceRead(Read):
    """A stored invoice with its relations."""

    number: int
    status: Status
    created_at: Moment
    due_at: Moment | None
    customer: CustomerName
    lines: list[LineRead]
    tags: list[TagRead]


class Open(Read):
    """The open invoices: their number and their sum."""

    invoices: int
    total: Decimal
