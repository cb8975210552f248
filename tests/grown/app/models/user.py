"""Users, in a schema of their own."""

from sqlalchemy import Identity, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base


class User(Base):
    """One user. The database stores the hash of the token only."""

    __tablename__ = "users"
    __table_args__ = {"schema": "accounts"}

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
