"""The login: a bearer token names the user."""

from hashlib import sha256
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import select

from app.dependencies import ReadSession
from app.models.user import User


async def get_user(
    reader: ReadSession,
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> User:
    digest = sha256(credentials.credentials.encode()).digest()
    user = await reader.scalar(select(User).where(User.token_hash == digest))
    if user is None:
        problem = {"detail": "The token is not valid.", "code": "unknown_token"}
        raise HTTPException(401, problem, {"WWW-Authenticate": "Bearer"})
    return user


CurrentUser = Annotated[User, Depends(get_user)]
