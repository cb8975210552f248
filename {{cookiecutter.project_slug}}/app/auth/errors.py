"""Errors of accounts that become responses."""

from app.errors import AppError


class Unauthorized(AppError):
    """The request has no valid token, or the login failed."""

    status = 401
    headers = {"WWW-Authenticate": "Bearer"}


class Forbidden(AppError):
    """The user may not do this."""

    status = 403


class TooManyRequests(AppError):
    """The client must wait."""

    status = 429

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many attempts: try again in {seconds} seconds.")
        self.headers = {"Retry-After": str(seconds)}


class Busy(AppError):
    """Too many requests wait for the hash of a password."""

    status = 503
