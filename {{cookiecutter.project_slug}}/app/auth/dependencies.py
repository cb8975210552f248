"""The dependencies of routes: the user, and the rights that a route requires."""

from datetime import timedelta
from ipaddress import ip_address
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession  # option: jobs=no
from starlette.background import BackgroundTasks  # option: jobs=no

from app.auth import service, tokens
from app.auth.errors import Forbidden, Unauthorized
from app.auth.mail import Mailer
from app.auth.passwords import Passwords
from app.auth.service import Auth, Client, User
from app.auth.tasks import post  # option: jobs=yes
from app.config import Settings
from app.dependencies import get_database
from app.models.account import Role, TokenKind
from app.web.openapi import responses


def install(app: FastAPI, settings: Settings) -> None:
    """Give the application the objects and limits that the flows of accounts share."""
    app.state.auth = {
        "passwords": Passwords(),
        "mailer": Mailer(settings),
        "session_idle": timedelta(seconds=settings.session_idle_seconds),
        "session_lifetime": timedelta(seconds=settings.session_lifetime_seconds),
    }


async def get_auth(connection: HTTPConnection) -> Auth:
    return Auth(await get_database(connection), **connection.app.state.auth)


async def get_client(connection: HTTPConnection) -> Client:
    """Return the sender. Behind a proxy, uvicorn finds its address: see docs/auth.md."""
    device = connection.headers.get("user-agent", "").replace("\0", "")[:200]
    try:
        ip = ip_address(connection.client.host if connection.client else "")
    except ValueError:
        return Client(None, device)
    # A server that listens on IPv6 sees an IPv4 client as ::ffff:192.0.2.1.
    return Client(str(getattr(ip, "ipv4_mapped", None) or ip), device)


BEARER = HTTPBearer(
    scheme_name="token", description="from POST /auth/login, or a key", auto_error=False
)
ServerAuth = Annotated[Auth, Depends(get_auth)]
Sender = Annotated[Client, Depends(get_client)]


async def send_mail(auth: Auth, name: str, email: str) -> None:  # option: jobs=no
    async with auth.database.sessions.begin() as session:
        mail = await service.write_mail(session, name, email)
    if mail:
        await auth.mailer.send(*mail)


async def get_post(auth: ServerAuth, after: BackgroundTasks) -> service.Post:  # option: jobs=no
    """Return a function that has a mail sent after the commit and the response."""

    async def post(_: AsyncSession, name: str, email: str) -> None:
        after.add_task(send_mail, auth, name, email)

    return post


async def get_post() -> service.Post:  # option: jobs=yes
    """Return a function that has a job send a mail."""
    return post


Posting = Annotated[service.Post, Depends(get_post)]


async def get_user(
    auth: ServerAuth, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
) -> User:
    """Return the user. Raises Unauthorized."""
    if credentials is None:
        raise Unauthorized("This needs a token: log in.")
    values = {"hash": tokens.digest(credentials.credentials), "idle": auth.session_idle}
    for row in await auth.database.reader.rows(tokens.USER_OF, values):
        if row.unused:
            async with auth.database.sessions.begin() as session:
                await tokens.touch(session, row.token_id)
        # Who finds a key has the rights of a user, whoever made it.
        role = row.role if row.kind is TokenKind.SESSION else Role.USER
        return User(row.id, row.email, role, row.token_id, row.kind)
    raise Unauthorized("The token is unknown or expired: log in.")


CurrentUser = Annotated[User, Depends(get_user)]


async def get_session_user(user: CurrentUser) -> User:
    """Return the user of a login: a key cannot change its account."""
    if user.kind is not TokenKind.SESSION:
        raise Forbidden("This needs a login: a key does not suffice.")
    return user


SessionUser = Annotated[User, Depends(get_session_user)]


def require(role: Role) -> Any:
    """Return a dependency that only users with this role pass."""

    async def check(user: CurrentUser) -> User:
        if user.role is not role:
            raise Forbidden(f"This needs the role {role}.")
        return user

    return Depends(check)


def signed_in(router: APIRouter) -> APIRouter:
    """Return the routes of a feature, which now need a login."""
    outer = APIRouter(dependencies=[Depends(get_user)], responses=responses(401))
    outer.include_router(router)
    return outer
