import enum
from uuid import UUID

from sqlalchemy import CheckConstraint, Enum, ForeignKey, Identity, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shop.database import Base


class Status(enum.StrEnum):
    OPEN = "open"
    PAID = "paid"


StatusType = Enum(Status, name="order_status", values_callable=lambda s: [str(m) for m in s])


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (UniqueConstraint("customer_id", "number", name="one_number_each"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    customer_id: Mapped[UUID] = mapped_column(ForeignKey("customers.id"), index=True)
    number: Mapped[int] = mapped_column(CheckConstraint("number > 0", name="counted"))
    status: Mapped[Status] = mapped_column(StatusType, server_default=Status.OPEN)


class Line(Base):
    __tablename__ = "lines"

    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    of_status: Mapped[Status] = mapped_column(StatusType)
