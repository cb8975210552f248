"""Products, whose unit is an enum type of PostgreSQL."""

from decimal import Decimal
from enum import StrEnum

from sqlalchemy import CheckConstraint, Enum, Identity, Numeric
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base


class Unit(StrEnum):
    """The unit of a quantity."""

    PIECE = "piece"
    HOUR = "hour"


class Product(Base):
    """One product. Its SKU is unique."""

    __tablename__ = "products"
    __table_args__ = (CheckConstraint("price >= 0", name="price_positive"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    sku: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    unit: Mapped[Unit] = mapped_column(
        Enum(Unit, name="unit", values_callable=lambda units: [unit.value for unit in units]),
        server_default=Unit.PIECE,
    )
