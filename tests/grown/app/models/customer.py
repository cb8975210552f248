"""Customers. A deleted one keeps its invoices and frees its e-mail address."""

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Index, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.database import Base

if TYPE_CHECKING:
    from app.models.invoice import Invoice


class Customer(Base):
    """One customer. `deleted_at` is the time of a soft deletion."""

    __tablename__ = "customers"
    __table_args__ = (
        Index("ix_customers_email", "email", unique=True, postgresql_where="deleted_at IS NULL"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    name: Mapped[str]
    email: Mapped[str]
    labels: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))
    details: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deleted_at: Mapped[datetime | None]
    invoices: Mapped[list["Invoice"]] = relationship(  # PostgreSQL refuses a delete
        back_populates="customer", passive_deletes="all"
    )
    version: Mapped[int] = mapped_column(server_default=text("1"))
    __mapper_args__ = Base.__mapper_args__ | {"version_id_col": version}
