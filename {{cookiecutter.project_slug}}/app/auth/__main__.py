"""`python -m app.auth`: administrators, and the removal of expired rows."""

import argparse
import asyncio
import sys
from datetime import timedelta

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import and_, delete, func, literal
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.schemas import Email
from app.auth.service import BY_EMAIL, set_password
from app.auth.tokens import VALID
from app.config import get_settings
from app.database import Database, create_engine
from app.database.violations import DATABASE_ERRORS
from app.models.account import Account, Role, Throttle, Token

UNVERIFIED = timedelta(days=7)  # kept


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
        return TypeAdapter(Email).validate_python(value)
    except ValidationError:
        raise argparse.ArgumentTypeError(f"{value!r} is no address like ann@example.com") from None


async def run(arguments: argparse.Namespace) -> str:
    settings = get_settings()
    engine = create_engine(settings)
    try:
        async with Database(engine).sessions.begin() as session:
            if arguments.command == "clean":
                return await clean(session, timedelta(seconds=settings.session_idle_seconds))
            return await set_role(session, arguments.email, Role(arguments.command))
    finally:
        await engine.dispose()


async def set_role(session: AsyncSession, email: str, role: Role) -> str:
    if role is Role.ADMIN:
        await session.execute(insert(Account).values(email=email).on_conflict_do_nothing())
    account = await session.scalar(BY_EMAIL.with_for_update(), {"email": email})
    if account is None:
        sys.exit(f"There is no account {email}.")
    account.role = role
    if account.verified_at:
        return f"{email} has the role {role}."
    await set_password(session, account, None)  # somebody else may have registered the address
    return f"{email} has the role {role}. POST /auth/password/forgot mails a token for a password."


async def clean(session: AsyncSession, idle: timedelta) -> str:
    """Delete expired tokens, limits not in use, and accounts that were never verified."""
    unverified = and_(Account.verified_at.is_(None), Account.role == Role.USER)
    counts = []
    for table, condition in {
        Token: ~VALID,
        Throttle: Throttle.free_at < func.now(),
        Account: and_(unverified, Account.created_at < func.now() - UNVERIFIED),
    }.items():
        gone = delete(table).where(condition).returning(literal(1))
        found = await session.scalars(gone, {"idle": idle})
        counts.append(f"{len(found.all())} {table.__tablename__}")
    return f"Deleted: {', '.join(counts)}."


if __name__ == "__main__":
    main()
