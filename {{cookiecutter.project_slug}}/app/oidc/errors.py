"""Errors of access tokens that become responses, with the headers of RFC 6750."""

from app.errors import AppError


class Unauthorized(AppError):
    """The request has no access token."""

    status = 401
    headers = {"WWW-Authenticate": "Bearer"}


class InvalidToken(Unauthorized):
    """The access token is forged, expired or for another API."""

    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


class Forbidden(AppError):
    """The access token lacks a scope."""

    status = 403

    def __init__(self, scope: str) -> None:
        super().__init__(f"This needs the scope {scope}.")
        self.headers = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'}


class ProviderUnavailable(AppError):
    """The provider does not answer, and the key or address that it should send is unknown."""

    status = 503
    headers = {"Retry-After": "5"}

    def __init__(self) -> None:
        super().__init__("The identity provider does not answer.")
