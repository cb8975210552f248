"""The dependencies of routes: the user, and the scopes that a route requires."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.config import Settings
from app.oidc.errors import Forbidden, Unauthorized
from app.oidc.tokens import User, Verifier
from app.web.openapi import responses

BEARER = HTTPBearer(
    scheme_name="oidc", bearerFormat="JWT", description="an access token", auto_error=False
)
SCOPES: set[str] = set()  # all that routes require; for tests


def install(app: FastAPI, settings: Settings) -> None:
    """Give the application its verifier. It fetches nothing before the first token."""
    app.state.oidc = Verifier(settings.oidc_issuer, settings.oidc_audience)


async def get_user(
    connection: HTTPConnection,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
) -> User:
    """Return the user. Raises Unauthorized or ProviderUnavailable."""
    if credentials is None:
        raise Unauthorized("This needs an access token: log in.")
    verifier: Verifier = connection.app.state.oidc
    return await verifier.verify(credentials.credentials)


CurrentUser = Annotated[User, Depends(get_user)]


def require(scope: str, read_scope: str | None = None) -> Any:
    """Return a dependency that requires the scope, or `read_scope` for GET and HEAD."""
    SCOPES.update({scope, read_scope or scope})

    async def check(connection: HTTPConnection, user: CurrentUser) -> User:
        reads = connection.scope.get("method") in {"GET", "HEAD"}  # a WebSocket has no method
        needed = read_scope if read_scope and reads else scope
        if needed not in user.scopes:
            raise Forbidden(needed)
        return user

    return Depends(check)


def signed_in(router: APIRouter, name: str) -> APIRouter:
    """Return the routes of a feature, which now require the scope NAME:read or NAME:write."""
    needed = require(f"{name}:write", read_scope=f"{name}:read")
    outer = APIRouter(dependencies=[needed], responses=responses(401, 403, 503))
    outer.include_router(router)
    return outer
