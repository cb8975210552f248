"""HTTP for accounts."""

from typing import Any

from fastapi import APIRouter

from app.auth import schemas, service
from app.auth.dependencies import CurrentUser, Posting, Sender, ServerAuth, SessionUser
from app.auth.throttle import count_mail
from app.dependencies import Session
from app.models.account import TokenKind
from app.types import Id
from app.web.openapi import responses

router = APIRouter(prefix="/auth", tags=["auth"], responses=responses(503, 504))
OWN = responses(401, 403)  # of an account's own routes


@router.post("/register", status_code=202, responses=responses(429))
async def register(
    new: schemas.Registration, auth: ServerAuth, sender: Sender, post: Posting
) -> None:
    """Create an account and mail a token to verify it. A known address gets the same response."""
    await service.register(auth, new.email, new.password, sender, post)


@router.post("/verify", status_code=204, responses=responses(404))
async def verify(verification: schemas.Verification, session: Session) -> None:
    """Verify the address with the token of the mail."""
    await service.verify(session, verification.token)


@router.post("/verify/resend", status_code=202, responses=responses(429))
async def resend(
    address: schemas.Address, sender: Sender, session: Session, post: Posting
) -> None:
    """Mail another token to verify the address, if it needs one."""
    await count_mail(session, "verify", address.email, sender.address)
    await post(session, "verify", address.email)


@router.post("/login", responses=responses(401, 429))
async def login(credentials: schemas.Login, auth: ServerAuth, sender: Sender) -> schemas.TokenRead:
    """Return a bearer token. The address must be verified."""
    token, row = await service.login(auth, credentials.email, credentials.password, sender)
    return schemas.TokenRead(token=token, expires_at=row.expires_at)


@router.post("/logout", status_code=204, responses=OWN)
async def logout(user: SessionUser, session: Session) -> None:
    """End this session."""
    await service.delete_token(session, user, TokenKind.SESSION, user.token_id)


@router.get("/sessions", response_model=list[schemas.SessionRead], responses=OWN)
async def read_sessions(user: SessionUser, auth: ServerAuth) -> Any:
    return await service.read_tokens(auth, user, TokenKind.SESSION)


@router.delete("/sessions/{session_id}", status_code=204, responses=OWN | responses(404))
async def delete_session(session_id: Id, user: SessionUser, session: Session) -> None:
    await service.delete_token(session, user, TokenKind.SESSION, session_id)


@router.post("/password/forgot", status_code=202, responses=responses(429))
async def forgot_password(
    address: schemas.Address, sender: Sender, session: Session, post: Posting
) -> None:
    """Mail a token to choose a password, if there is an account."""
    await count_mail(session, "reset", address.email, sender.address)
    await post(session, "reset", address.email)


@router.post("/password/reset", status_code=204, responses=responses(404))
async def reset_password(reset: schemas.PasswordReset, auth: ServerAuth, sender: Sender) -> None:
    """Set the password with the token of the mail. Ends every session and key."""
    await service.reset_password(auth, reset.token, reset.password, sender)


@router.post("/password/change", status_code=204, responses=OWN | responses(429))
async def change_password(
    change: schemas.PasswordChange, user: SessionUser, auth: ServerAuth, sender: Sender
) -> None:
    """Set another password. Ends every other session, and every key."""
    await service.change_password(auth, user, change.current_password, change.password, sender)


@router.get("/me", response_model=schemas.AccountRead, responses=responses(401))
async def read_me(user: CurrentUser) -> Any:
    return user


@router.delete("/me", status_code=204, responses=OWN | responses(409, 429))
async def delete_me(
    confirmation: schemas.Confirmation, user: SessionUser, auth: ServerAuth, sender: Sender
) -> None:
    """Delete the account, its sessions and its keys."""
    await service.delete_account(auth, user, confirmation.password, sender)


@router.post("/keys", status_code=201, responses=OWN | responses(409))
async def create_key(
    new: schemas.KeyCreate, user: SessionUser, session: Session
) -> schemas.KeyCreated:
    """Create a key for a machine, with the rights of a user."""
    token, row = await service.create_key(session, user, new.name, new.expires_in_days)
    return schemas.KeyCreated(token=token, **schemas.KeyRead.model_validate(row).model_dump())


@router.get("/keys", response_model=list[schemas.KeyRead], responses=OWN)
async def read_keys(user: SessionUser, auth: ServerAuth) -> Any:
    return await service.read_tokens(auth, user, TokenKind.KEY)


@router.delete("/keys/{key_id}", status_code=204, responses=OWN | responses(404))
async def delete_key(key_id: Id, user: SessionUser, session: Session) -> None:
    await service.delete_token(session, user, TokenKind.KEY, key_id)
