"""The tables of accounts. `app/auth/` reads and writes them."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ForeignKey, Identity, Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base


class Role(StrEnum):
    """The rights of an account."""

    USER = "user"
    ADMIN = "admin"


class TokenKind(StrEnum):
    """The use of a token: two are sent with requests, two come by mail and work once."""

    SESSION = "session"
    KEY = "key"
    VERIFY = "verify"
    RESET = "reset"


class Account(Base):
    """One e-mail address. It can log in when it is verified and has a password."""

    __tablename__ = "accounts"
    __table_args__ = (Index("uq_accounts_email", text("lower(email)"), unique=True),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    email: Mapped[str]
    password_hash: Mapped[str | None]
    password_version: Mapped[int] = mapped_column(server_default=text("0"))  # counts passwords
    role: Mapped[Role] = mapped_column(server_default=Role.USER)
    verified_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Token(Base):
    """A session, a key for a machine, or the token of a mail. The token itself is not stored."""

    __tablename__ = "account_tokens"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey(Account.id, ondelete="CASCADE"), index=True)
    kind: Mapped[TokenKind]
    hash: Mapped[bytes] = mapped_column(LargeBinary, unique=True)  # SHA-256
    name: Mapped[str] = mapped_column(server_default="")  # a session's device, a key's name
    address: Mapped[str | None]  # of the client that logged in
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class Throttle(Base):
    """A limit that is in use. `key` is the hash of an address, for instance."""

    __tablename__ = "account_throttles"

    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    free_at: Mapped[datetime]  # when nothing counts any more
