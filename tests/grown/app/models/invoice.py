"""Invoices with lines and tags."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Numeric,
    Sequence,
    Table,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.database import Base
from app.models.customer import Customer
from app.models.product import Product

NUMBERS = Sequence("invoice_numbers", start=1000, metadata=Base.metadata)


class Status(StrEnum):
    """The state of an invoice."""

    OPEN = "open"
    PAID = "paid"


invoice_tags = Table(
    "invoice_tags",
    Base.metadata,
    Column("invoice_id", ForeignKey("invoices.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True, index=True),
)


class Tag(Base):
    """A word that groups invoices."""

    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Invoice(Base):
    """One invoice. The sequence gives its number."""

    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    number: Mapped[int] = mapped_column(
        BigInteger, NUMBERS, server_default=NUMBERS.next_value(), unique=True
    )
    customer_id: Mapped[UUID] = mapped_column(ForeignKey(Customer.id), index=True)
    customer: Mapped[Customer] = relationship(back_populates="invoices")
    status: Mapped[Status] = mapped_column(server_default=Status.OPEN)
    created_by: Mapped[int] = mapped_column(ForeignKey("accounts.users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    due_at: Mapped[datetime | None]
    lines: Mapped[list["InvoiceLine"]] = relationship(
        order_by="InvoiceLine.position", cascade="all, delete-orphan"
    )
    tags: Mapped[list[Tag]] = relationship(secondary=invoice_tags, order_by=Tag.name)


class InvoiceLine(Base):
    """One line of an invoice, with the price of its day."""

    __tablename__ = "invoice_lines"
    __table_args__ = (CheckConstraint("quantity > 0", name="quantity_positive"),)

    invoice_id: Mapped[int] = mapped_column(
        ForeignKey(Invoice.id, ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id), index=True)
    quantity: Mapped[Decimal] = mapped_column(Numeric(10, 3))
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2))
