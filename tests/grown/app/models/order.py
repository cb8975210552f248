"""Orders. `order` is a reserved word of SQL."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Identity, func
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base
from app.models.customer import Customer


class Channel(StrEnum):
    """The way an order came."""

    SHOP = "shop"
    PHONE = "phone"


class Order(Base):
    """One order."""

    __tablename__ = "order"
    __table_args__ = (CheckConstraint('"limit" >= 0', name="limit_positive"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    customer_id: Mapped[UUID] = mapped_column(ForeignKey(Customer.id), index=True)
    channel: Mapped[Channel]
    limit: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
