"""Every error that a client can see, as RFC 9457 `application/problem+json`."""

import logging
from collections.abc import Mapping
from http.client import responses as phrases
from typing import Any

from asyncpg import InterfaceError, PostgresError, QueryCanceledError, UniqueViolationError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from structlog.contextvars import get_contextvars

from app.database import Base, DatabaseUnavailable

MEDIA_TYPE = "application/problem+json"

logger = logging.getLogger(__name__)


class NotFound(Exception):
    """What was asked for does not exist."""


class Conflict(Exception):
    """The request contradicts what is stored."""


class Problem(BaseModel):
    """The body of an error; `errors` lists each fault of a 422 and where it is.

    `request_id` is that of a 500, to find it in the log.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None
    request_id: str | None = None


def install(app: FastAPI) -> None:
    """Answer every exception with a Problem."""
    named = (HTTPException, RequestValidationError, NotFound, Conflict)
    # asyncpg's own are of a connection that was lost while SQLAlchemy set it up.
    database = (DatabaseUnavailable, DBAPIError, PoolTimeout, PostgresError, InterfaceError)
    for kind in named + database:
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(Exception, answer_unexpected)


async def answer(request: Request, error: Exception) -> JSONResponse:
    """The one place where exceptions become statuses; what is not named here is a bug."""
    match error:
        case HTTPException():
            return problem(error.status_code, str(error.detail), headers=error.headers)
        case RequestValidationError():
            faults = [describe_fault(fault) for fault in error.errors()]
            return problem(422, "The request is not valid.", errors=faults)
        case NotFound():
            return problem(404, str(error))
        case Conflict():
            return problem(409, str(error))
        case IntegrityError(driver_exception=UniqueViolationError() as violation):
            return problem(409, describe_violation(violation))
        case DBAPIError(driver_exception=QueryCanceledError()):
            logger.error("A query took too long: %s", error)
            return problem(504, "The database took too long.")
        case PoolTimeout():
            logger.error("Every connection of the pool is in use: %s", error)
            return problem(503, "The database is busy.")
        case (
            DatabaseUnavailable()
            | PostgresError()
            | InterfaceError()
            | DBAPIError(connection_invalidated=True)
        ):
            logger.error("The database cannot be reached: %s", error)
            return problem(503, "The database cannot be reached.")
        case _:
            raise error


async def answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    """A bug: the server logs it, the client learns nothing of it."""
    headers = {"Connection": "close"}  # as uvicorn does, whose client might send another request
    request_id = get_contextvars().get("request_id")
    return problem(500, "The server failed to answer.", headers, request_id=request_id)


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, **members: Any
) -> JSONResponse:
    """A response whose body is a Problem."""
    body = Problem(title=phrases.get(status, "Error"), status=status, detail=detail, **members)
    return JSONResponse(body.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)


def describe_fault(fault: Mapping[str, Any]) -> dict[str, str]:
    """Where a value is wrong and why; never the value, which may be secret or huge."""
    return {"location": ".".join(map(str, fault["loc"])), "detail": fault["msg"]}


def describe_violation(violation: UniqueViolationError) -> str:
    """The columns whose values are taken, found by the constraint's name."""
    names = {
        constraint.name: [column.name for column in constraint.columns]
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
        if hasattr(constraint, "columns")
    }
    columns = names.get(violation.constraint_name, [])
    return f"Another one has this {' and '.join(columns) or 'value'}."


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the errors that a route can answer."""
    return {status: describe_response(status) for status in statuses}


def describe_response(status: int) -> dict[str, Any]:
    phrase = phrases[status]
    example = {"type": "about:blank", "title": phrase, "status": status, "detail": "…"}
    content = {"schema": Problem.model_json_schema(), "example": example}
    return {"description": phrase, "content": {MEDIA_TYPE: content}}
