"""`python -m app.auth`: administrators, and the removal of expired rows."""

import argparse
import asyncio
import sys
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, delete, exists, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.schemas import normalize_email
from app.auth.service import BY_EMAIL, ensure_account, set_password
from app.auth.tokens import VALID
from app.config import get_settings
from app.database import Database, create_engine
from app.database.violations import DATABASE_ERRORS
from app.models.account import Account, Role, Throttle, Token

UNVERIFIED = timedelta(days=7)  # kept
BATCH = 20_000  # rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.auth", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for role, text in {Role.ADMIN: "make an administrator", Role.USER: "undo that"}.items():
        commands.add_parser(role, help=text).add_argument("email", type=email, metavar="EMAIL")
    commands.add_parser("clean", help="delete expired rows")
    arguments = parser.parse_args()
    try:
        print(asyncio.run(run(arguments)))
    except DATABASE_ERRORS as error:
        sys.exit(f"The database cannot be used: {type(error).__name__}")


def email(value: str) -> str:
    try:
        return normalize_email(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is no address like ann@example.com") from None


async def run(arguments: argparse.Namespace) -> str:
    settings = get_settings()
    engine = create_engine(settings)
    database = Database(engine)
    try:
        if arguments.command == "clean":
            return await clean(database, timedelta(seconds=settings.session_idle_seconds))
        async with database.sessions.begin() as session:
            return await set_role(session, arguments.email, Role(arguments.command))
    finally:
        await engine.dispose()


async def set_role(session: AsyncSession, email: str, role: Role) -> str:
    if role is Role.ADMIN:
        await ensure_account(session, email, None)
    account = await session.scalar(BY_EMAIL.with_for_update(), {"email": email})
    if account is None:
        sys.exit(f"There is no account {email}.")
    account.role = role
    if account.verified_at:
        return f"{email} has the role {role}."
    await set_password(session, account, None)  # somebody else may have registered the address
    return f"{email} has the role {role}. POST /auth/password/forgot mails a token for a password."


async def clean(database: Database, idle: timedelta) -> str:
    """Delete expired tokens, limits not in use, and accounts that were never verified."""
    unverified = and_(Account.verified_at.is_(None), Account.role == Role.USER)
    old = Account.created_at < func.now() - UNVERIFIED
    mailed = exists().where(Token.account_id == Account.id)
    unwanted: list[tuple[Any, Any, Any]] = [
        (Token, Token.id, ~VALID),
        (Throttle, Throttle.key, Throttle.free_at < func.now()),
        (Account, Account.id, and_(unverified, old, ~mailed)),
    ]
    counts = []
    for table, key, condition in unwanted:
        # What a request has locked stays until the next time: nobody waits for the other.
        batch = select(key).where(condition).limit(BATCH).with_for_update(skip_locked=True)
        gone = delete(table).where(key.in_(batch)).returning(literal(1))
        count, found = 0, BATCH
        while found >= BATCH:  # one transaction each, for the statement timeout
            async with database.sessions.begin() as session:
                found = len((await session.scalars(gone, {"idle": idle})).all())
            count += found
        counts.append(f"{count} {table.__tablename__}")
    return f"Deleted: {', '.join(counts)}."


if __name__ == "__main__":
    main()
