"""Error responses: RFC 9457, `application/problem+json`."""

import logging
from collections.abc import Mapping
from http import HTTPMethod
from http.client import responses as phrases
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse, Response
from fastapi.utils import is_body_allowed_for_status_code
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.websockets import WebSocketState
from structlog.contextvars import get_contextvars

from app.database.engine import DatabaseUnavailable
from app.database.sessions import HOW_TO_LOAD
from app.database.violations import DATABASE_ERRORS, UNKNOWN, driver_error, explain
from app.errors import AppError

MEDIA_TYPE = "application/problem+json"
logger = logging.getLogger(__name__)


class FieldError(BaseModel):
    """One wrong value of a request."""

    location: str = Field(examples=["body.name"])
    detail: str


class Problem(BaseModel):
    """The body of an error. A 500 has a `request_id`, which is in its log lines."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] = Field(default_factory=list)
    request_id: str = Field(default_factory=str)


def install(app: FastAPI) -> None:
    for kind in (HTTPException, RequestValidationError, AppError, *DATABASE_ERRORS):
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(Exception, answer_unexpected)


async def answer(connection: HTTPConnection, error: Exception) -> Any:
    """Answer a request, or end a WebSocket."""
    response = respond(connection, error)
    if not isinstance(connection, WebSocket):
        return response
    if connection.application_state is WebSocketState.CONNECTING:
        return await connection.send_denial_response(response)
    code = 1013 if response.status_code in {503, 504} else 1008  # 1013: try again later
    return await connection.close(code, phrases.get(response.status_code))


def respond(connection: HTTPConnection, error: Exception) -> Response:
    """Turn an exception into a response. An unknown one is a bug and is raised again."""
    match error:
        case HTTPException(status_code=405):
            return problem(405, str(error.detail), {"Allow": allowed_methods(connection)})
        case HTTPException(status_code=status, detail=str(detail)):
            return problem(status, detail, error.headers)
        case HTTPException(status_code=status, detail=detail):
            members: Any = detail if isinstance(detail, dict) else {"errors": detail}
            return problem(**members | {"status": status, "headers": error.headers})
        case RequestValidationError():
            errors = [  # without the values, which may be secret or huge
                {"location": ".".join(map(str, fault["loc"])), "detail": fault["msg"]}
                for fault in error.errors()
            ]
            return problem(422, "The request is not valid.", errors=errors)
        case AppError():
            return problem(error.status, str(error), getattr(error, "headers", None))
    explanation = explain(error, connection.scope.get("method", ""))
    if explanation is None:
        raise error
    status, detail, fields = explanation
    if status != 409:  # error trackers group by this text, so each kind has its own
        logger.error(f"{detail} {describe_cause(error)}")
    errors = [{"location": f"body.{field}", "detail": detail} for field in fields]
    return problem(status, detail, errors=errors)


def describe_cause(error: Exception) -> str:
    """Return type and SQLSTATE of the error for the log. Its message may quote a value."""
    if isinstance(error, DatabaseUnavailable):
        return str(error)
    cause = driver_error(error)
    return f"{type(cause).__name__} {getattr(cause, 'sqlstate', None) or ''}".rstrip()


async def answer_unexpected(request: Request, error: Exception) -> Response:
    """Answer a bug without its message. The server logs the traceback."""
    if "DetachedInstanceError" in f"{type(error).__name__} {error}":
        error.add_note(HOW_TO_LOAD)
    headers = {"Connection": "close"}  # uvicorn closes it, so the client must not reuse it
    request_id = get_contextvars().get("request_id")
    return problem(500, "The server failed to answer.", headers, request_id=request_id)


def problem(
    status: int, detail: str = "", headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """Return a response whose body is a Problem with the `members` that have a value."""
    if not is_body_allowed_for_status_code(status):  # uvicorn would break the connection
        return Response(None, status, headers)
    if status == 503 and detail != UNKNOWN:  # a repeated change might be stored twice
        headers = {"Retry-After": "1", **(headers or {})}  # in seconds
    title = phrases.get(status, "Error")
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail or title}
    content |= {name: value for name, value in members.items() if value}
    return JSONResponse(content, status, headers, MEDIA_TYPE)


def allowed_methods(connection: HTTPConnection) -> str:
    """Return every method of the path. FastAPI names only those of the first matching route."""

    def allows(method: str) -> bool:
        scope = {**connection.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in connection.app.routes)

    return ", ".join(filter(allows, HTTPMethod)) or "GET, HEAD"  # of static files
