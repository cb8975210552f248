"""Every error that a client can see, as RFC 9457 `application/problem+json`."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPMethod
from http.client import responses as phrases
from typing import Any

from asyncpg import InterfaceError, PostgresError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match
from structlog.contextvars import get_contextvars

from app.database import DatabaseUnavailable, SchemaChanged
from app.sqlstates import explain

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "1"  # seconds, with every 503

INVALID = "The request is not valid."
UNEXPECTED = "The server failed to answer."

logger = logging.getLogger(__name__)


class NotFound(Exception):
    """What was asked for does not exist."""


class Conflict(Exception):
    """The request contradicts what is stored."""


class Fault(BaseModel):
    """One value of a request that is wrong."""

    location: str = Field(examples=["body.name"])
    detail: str


class Problem(BaseModel):
    """The body of an error; `errors` lists the values that are wrong.

    `request_id` is that of a 500, to find it in the log.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[Fault] = Field(default_factory=list)
    request_id: str = Field(default_factory=str)


def install(app: FastAPI) -> None:
    """Answer every exception with a Problem."""
    named = (HTTPException, RequestValidationError, NotFound, Conflict)
    by_asyncpg = (PostgresError, InterfaceError)  # used directly, or by SQLAlchemy to connect
    database = (DatabaseUnavailable, SchemaChanged, DBAPIError, PoolTimeout, TimeoutError)
    for kind in named + database + by_asyncpg:
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(Exception, answer_unexpected)


async def answer(request: Request, error: Exception) -> JSONResponse:
    """The one place where exceptions become statuses; what is not named here is a bug."""
    match error:
        case HTTPException(status_code=405):
            return problem(405, str(error.detail), headers={"Allow": allowed_methods(request)})
        case HTTPException():
            return problem(error.status_code, str(error.detail), headers=error.headers)
        case RequestValidationError():
            return problem(422, INVALID, [describe_fault(fault) for fault in error.errors()])
        case NotFound():
            return problem(404, str(error))
        case Conflict():
            return problem(409, str(error))
    if refusal := explain(error, request.method):
        status, detail, fields = refusal
        if status != 409:
            logger.error("%s %s", detail, describe_cause(error))
        faults = [Fault(location=f"body.{field}", detail=detail) for field in fields]
        return problem(status, detail, faults)
    raise error


def describe_cause(error: Exception) -> str:
    """For the log: type and SQLSTATE alone, as messages may quote a value; of ours the message."""
    if isinstance(error, DatabaseUnavailable):
        return str(error)
    cause = getattr(error, "driver_exception", error)
    return f"{type(cause).__name__} {getattr(cause, 'sqlstate', None) or ''}".rstrip()


async def answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    """A bug: the server logs it, the client learns nothing of it."""
    headers = {"Connection": "close"}  # as uvicorn does, whose client might send another request
    request_id = get_contextvars().get("request_id", "")
    return problem(500, UNEXPECTED, headers=headers, request_id=request_id)


def problem(
    status: int,
    detail: str,
    errors: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
    request_id: str = "",
) -> JSONResponse:
    """A response whose body is a Problem."""
    if status == 503:
        headers = {"Retry-After": RETRY_AFTER, **(headers or {})}
    body = problem_body(status, detail, errors, request_id)
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def problem_body(
    status: int, detail: str, errors: Sequence[Fault] = (), request_id: str = ""
) -> dict[str, Any]:
    """A Problem without the members that are empty."""
    title = phrases.get(status, "Error")
    content = Problem(
        title=title, status=status, detail=detail, errors=[*errors], request_id=request_id
    )
    return {name: value for name, value in content.model_dump().items() if value}


def describe_fault(fault: Mapping[str, Any]) -> Fault:
    """Where a value is wrong and why; never the value, which may be secret or huge."""
    return Fault(location=".".join(map(str, fault["loc"])), detail=fault["msg"])


def allowed_methods(request: Request) -> str:
    """Every method of the path; FastAPI names those of the first route that has it."""

    def allows(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(allows, HTTPMethod)) or "GET, HEAD"  # of files, say
