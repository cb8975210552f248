"""Flows of accounts. No connection is held while a password is hashed.

So a flow reads, hashes, and then writes in one short transaction. That one checks by
`password_version` that no other request has set the password meanwhile.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import bindparam, case, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import tokens
from app.auth.errors import Forbidden, Unauthorized
from app.auth.mail import Mailer
from app.auth.passwords import Passwords
from app.auth.throttle import Attempt, count_mail
from app.auth.tokens import MAIL_LIFETIMES, issue
from app.database import Database, Reader
from app.errors import AppError, Conflict, NotFound
from app.models.account import Account, Role, Token, TokenKind

WRONG = "The address or the password is wrong, or the address is not verified."
NO_TOKEN = "The token is unknown, used or expired."  # noqa: S105 - a sentence
KEYS = SESSIONS = 100  # of one account

BY_EMAIL = select(Account).where(func.lower(Account.email) == bindparam("email"))
Mail = tuple[str, str, str]  # the arguments of Mailer.send
# Has a mail of this name sent to an address if the transaction commits.
Post = Callable[[AsyncSession, str, str], Awaitable[None]]


@dataclass(frozen=True)
class Auth:
    """What the flows need."""

    database: Database
    passwords: Passwords
    mailer: Mailer
    session_idle: timedelta
    session_lifetime: timedelta


@dataclass(frozen=True)
class Client:
    """The sender of a request, for its owner to recognize."""

    address: str | None
    device: str


@dataclass(frozen=True)
class User:
    """The account that a request acts for, and the token that it sent."""

    id: int
    email: str
    role: Role
    token_id: int
    kind: TokenKind


async def register(
    auth: Auth, email: str, password: SecretStr, client: Client, post: Post
) -> None:
    """Store an account, unless there is one, and post a mail. Takes as long in every case.

    Somebody may have registered the address of another. So two registrations with two passwords
    leave none: whoever reads the mail chooses.
    """
    async with auth.database.sessions.begin() as session:
        await count_mail(session, "register", email, client.address)
    async with auth.passwords.slot():
        known = await find(auth.database.reader, email)
        new_hash = await auth.passwords.hash(password)
        same, _ = await auth.passwords.verify(password, known and known.password_hash)
    async with auth.database.sessions.begin() as session:
        account = await ensure_account(session, email, new_hash)
        version = account.id, account.password_version
        same = same and version == (known.id, known.password_version)
        name = "known" if account.verified_at else "verify"
        if name == "verify" and account.password_hash != new_hash and not same:
            name = "choose"
            await set_password(session, account, None)
        await post(session, name, email)


async def ensure_account(session: AsyncSession, email: str, new_hash: str | None) -> Account:
    """Return the locked account of the address. Creates it if it is missing.

    One that was never verified is as new, so that `clean` cannot delete it before its mail.
    """
    created = case((Account.verified_at.is_(None), func.now()), else_=Account.created_at)
    new = insert(Account).values(email=email, password_hash=new_hash)
    # In one statement, or another request could delete the account meanwhile.
    locked = new.on_conflict_do_update(
        index_elements=[func.lower(Account.email)], set_={"created_at": created}
    )
    return (await session.scalars(locked.returning(Account))).one()


async def verify(session: AsyncSession, token: SecretStr) -> None:
    """Take the address as the user's. Raises NotFound."""
    account = await redeem(session, token, TokenKind.VERIFY)
    account.verified_at = func.now()


async def write_mail(session: AsyncSession, name: str, email: str) -> Mail | None:
    """Return the mail with a new token, if there is such an account and it needs the mail."""
    account = await session.scalar(BY_EMAIL.with_for_update(), {"email": email})
    if account is None or (name == "verify" and account.verified_at):
        return None
    if name == "verify" and account.password_hash is None:
        name = "reset"
    kind = TokenKind.VERIFY if name == "verify" else TokenKind.RESET
    token, _ = await issue(session, account.id, kind, MAIL_LIFETIMES[kind])
    return name, account.email, token


async def login(auth: Auth, email: str, password: SecretStr, client: Client) -> tuple[str, Token]:
    """Return a new token and its row. Raises Unauthorized, TooManyRequests or Busy."""
    failure = Unauthorized(WRONG)
    found, new_hash = await check_password(auth, email, password, client, failure)
    async with auth.database.sessions.begin() as session:
        account = await lock(session, found)
        account.password_hash = new_hash or account.password_hash
        await Attempt(email, client.address).remember(session)
        kind, lifetime = TokenKind.SESSION, auth.session_lifetime
        mine = (Token.account_id == account.id, Token.kind == kind)
        oldest = select(Token.id).where(*mine).order_by(Token.id.desc()).offset(SESSIONS - 1)
        await session.execute(delete(Token).where(Token.id.in_(oldest)))
        values = {"name": client.device, "address": client.address}
        return await issue(session, account.id, kind, lifetime, **values)


async def check_password(
    auth: Auth, email: str, password: SecretStr, client: Client, failure: AppError
) -> tuple[Any, str | None]:
    """Return the account's row, and a new hash if it is due. Raises `failure`, and counts it."""
    attempt, reader = Attempt(email, client.address), auth.database.reader
    await attempt.check(reader)
    async with auth.passwords.slot():
        await attempt.check(reader)  # others that waited may have failed
        found = await find(reader, email)
        right, new_hash = await auth.passwords.verify(password, found and found.password_hash)
        if not right or not found.verified_at:
            async with auth.database.sessions.begin() as session:
                await attempt.count(session)
            raise failure
    return found, new_hash


async def find(reader: Reader, email: str) -> Any:
    """Return the account's row or None."""
    return next(iter(await reader.rows(BY_EMAIL, {"email": email})), None)


async def lock(session: AsyncSession, found: Any) -> Account:
    """Lock the account against other logins and changes of its password."""
    same = (Account.id == found.id, Account.password_version == found.password_version)
    account = await session.scalar(select(Account).where(*same).with_for_update())
    if account is None:
        raise Unauthorized(WRONG)
    return account


def mailed(token: SecretStr, kind: TokenKind) -> dict[str, Any]:
    """Return the parameters of ACCOUNT_OF."""
    return {"hash": tokens.digest(token.get_secret_value()), "kind": kind}


async def redeem(session: AsyncSession, token: SecretStr, kind: TokenKind) -> Account:
    """Delete the token of a mail, so that it works once, and lock its account. Raises NotFound."""
    values = mailed(token, kind)
    account = await session.scalar(tokens.ACCOUNT_OF.with_for_update(of=Account), values)
    used = delete(Token).where(Token.hash == values["hash"]).returning(Token.id)
    if account is None or await session.scalar(used) is None:
        raise NotFound(NO_TOKEN)
    return account


async def reset_password(
    auth: Auth, token: SecretStr, password: SecretStr, client: Client
) -> None:
    """Set the password with the token of a mail. Raises NotFound."""
    if not await auth.database.reader.rows(tokens.ACCOUNT_OF, mailed(token, TokenKind.RESET)):
        raise NotFound(NO_TOKEN)  # a wrong token costs no hash
    async with auth.passwords.slot():
        new_hash = await auth.passwords.hash(password)
    async with auth.database.sessions.begin() as session:
        account = await redeem(session, token, TokenKind.RESET)
        account.verified_at = account.verified_at or func.now()
        await set_password(session, account, new_hash)
        await Attempt(account.email, client.address).remember(session)


async def change_password(
    auth: Auth, user: User, current: SecretStr, password: SecretStr, client: Client
) -> None:
    """Set the password of a user who knows it. Raises Forbidden."""
    failure = Forbidden("The current password is wrong.")
    found, _ = await check_password(auth, user.email, current, client, failure)
    async with auth.passwords.slot():
        new_hash = await auth.passwords.hash(password)
    async with auth.database.sessions.begin() as session:
        await set_password(session, await lock(session, found), new_hash, keep=user.token_id)


async def set_password(
    session: AsyncSession, account: Account, new_hash: str | None, keep: int = 0
) -> None:
    """Set the password of a locked account. Deletes its sessions, keys and mailed tokens."""
    account.password_hash = new_hash
    account.password_version += 1
    await session.execute(delete(Token).where(Token.account_id == account.id, Token.id != keep))


async def delete_account(auth: Auth, user: User, password: SecretStr, client: Client) -> None:
    failure = Forbidden("The password is wrong.")
    found, _ = await check_password(auth, user.email, password, client, failure)
    async with auth.database.sessions.begin() as session:
        await session.delete(await lock(session, found))


async def read_tokens(auth: Auth, user: User, kind: TokenKind) -> Sequence[Any]:
    """Return the sessions or the keys, the newest first."""
    values = {"account_id": user.id, "kind": kind, "current": user.token_id}
    values |= {"idle": auth.session_idle}
    return await auth.database.reader.rows(tokens.OF_ACCOUNT, values)


async def create_key(session: AsyncSession, user: User, name: str, days: int) -> tuple[str, Token]:
    """Return a new key and its row. Raises Conflict or Unauthorized."""
    await session.execute(select(Account.id).where(Account.id == user.id).with_for_update())
    if await session.get(Token, user.token_id) is None:  # a reset was faster
        raise Unauthorized(NO_TOKEN)
    mine = (Token.account_id == user.id, Token.kind == TokenKind.KEY)
    valid = Token.expires_at > func.now()
    if (await session.scalar(select(func.count(Token.id)).where(*mine, valid)) or 0) >= KEYS:
        raise Conflict(f"There are {KEYS} keys: delete one first.")
    return await issue(session, user.id, TokenKind.KEY, timedelta(days=days), name=name)


async def delete_token(session: AsyncSession, user: User, kind: TokenKind, token_id: int) -> None:
    """End a session or a key of the user's own. Raises NotFound."""
    own = (Token.id == token_id, Token.account_id == user.id, Token.kind == kind)
    if await session.scalar(delete(Token).where(*own).returning(Token.id)) is None:
        raise NotFound(f"There is no {kind.value} {token_id}.")
