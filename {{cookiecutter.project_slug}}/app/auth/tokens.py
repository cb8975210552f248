"""Tokens: 256 random bits for the client, their SHA-256 in the table."""

from datetime import timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any

from sqlalchemy import Interval, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.models.account import Account, Token, TokenKind

MAIL_LIFETIMES = {TokenKind.VERIFY: timedelta(days=1), TokenKind.RESET: timedelta(hours=1)}

VALID = and_(
    Token.expires_at > func.now(),
    or_(
        Token.kind != TokenKind.SESSION,
        Token.last_used_at > func.now() - bindparam("idle", type_=Interval),
    ),
)
UNUSED = Token.last_used_at < func.now() - timedelta(minutes=1)  # due for an update
# One round trip for each request.
USER_OF = (
    select(
        Account.id,
        Account.email,
        Account.role,
        Token.id.label("token_id"),
        Token.kind,
        UNUSED.label("unused"),
    )
    .join(Token, Token.account_id == Account.id)
    .where(Token.hash == bindparam("hash"), Token.kind.in_([TokenKind.SESSION, TokenKind.KEY]))
    .where(VALID)
)
OF_ACCOUNT = (
    select(Token, (Token.id == bindparam("current")).label("current"))
    .where(Token.account_id == bindparam("account_id"), Token.kind == bindparam("kind"), VALID)
    .order_by(Token.id.desc())
)
ACCOUNT_OF = (  # by the token of a mail
    select(Account)
    .join(Token, Token.account_id == Account.id)
    .where(Token.hash == bindparam("hash"), Token.kind == bindparam("kind"))
    .where(Token.expires_at > func.now())
)


def digest(token: str) -> bytes:
    # JSON can hold half of a surrogate pair, which UTF-8 cannot.
    return sha256(token.encode(errors="surrogatepass")).digest()


async def issue(
    session: AsyncSession, account_id: int, kind: TokenKind, lifetime: timedelta, **more: Any
) -> tuple[str, Token]:
    """Store a new token. Returns it, and its row."""
    token = token_urlsafe(32)
    values = {"account_id": account_id, "kind": kind, "hash": digest(token), **more}
    new = insert(Token).values(values | {"expires_at": func.now() + lifetime})
    return token, (await session.scalars(new.returning(Token))).one()


async def touch(session: AsyncSession, token_id: int) -> None:
    """Store that the token was used now."""
    due = update(Token).where(Token.id == token_id, UNUSED)
    await session.execute(due.values(last_used_at=func.now()))
