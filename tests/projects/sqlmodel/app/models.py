import enum
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func
from sqlmodel import Field, SQLModel


class Status(enum.StrEnum):
    OPEN = "open"
    PAID = "paid"


class Customer(SQLModel, table=True):
    __tablename__ = "customers"

    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(unique=True, max_length=200)


class Order(SQLModel, table=True):
    __tablename__ = "orders"

    id: int | None = Field(default=None, primary_key=True)
    customer_id: int = Field(foreign_key="customers.id", index=True)
    status: Status = Field(default=Status.OPEN)
    total: Decimal = Field(default=0, max_digits=10, decimal_places=2)
    created_at: datetime | None = Field(
        default=None, sa_column_kwargs={"server_default": func.now()}
    )
