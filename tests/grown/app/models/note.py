"""Notes about customers."""

from uuid import UUID

from sqlalchemy import ForeignKey, Identity
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base
from app.models.customer import Customer


class Note(Base):
    """One note."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    customer_id: Mapped[UUID] = mapped_column(ForeignKey(Customer.id), index=True)
    body: Mapped[str]
