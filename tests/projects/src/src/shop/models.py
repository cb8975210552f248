import enum
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, CheckConstraint, Computed, ForeignKey, Index, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shop.database import Base, key, text


class Status(enum.Enum):
    OPEN = "open"
    PAID = "paid"


class Customer(Base):
    __tablename__ = "customers"

    id: Mapped[key]
    email: Mapped[text] = mapped_column(unique=True)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint("quantity > 0", name="quantity_positive"),
        Index(None, "customer_id", "created_at", postgresql_where="status <> 'PAID'"),
    )

    id: Mapped[key]
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id))
    status: Mapped[Status] = mapped_column(server_default=Status.OPEN.name)
    quantity: Mapped[int] = mapped_column(server_default="1")
    price: Mapped[int]
    total: Mapped[int] = mapped_column(Computed("quantity * price"))
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default="{}")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
