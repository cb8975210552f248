from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from shop.database import Base


class Customer(Base):
    __tablename__ = "customers"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    email: Mapped[str] = mapped_column(unique=True, index=True)
