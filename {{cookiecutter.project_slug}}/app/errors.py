"""Errors that become responses. A new one is a class with a status."""


class AppError(Exception):
    """An error whose message is for the client: `raise NotFound("There is no item 7.")`."""

    status = 400


class NotFound(AppError):
    """The requested row does not exist."""

    status = 404


class Conflict(AppError):
    """The request contradicts the stored rows."""

    status = 409


class Unprocessable(AppError):
    """The request is well-formed, but a rule forbids it."""

    status = 422
