"""WebSockets: sessions, errors, the request's id and the log line."""

import logging
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, WebSocket, WebSocketException
from sqlalchemy import func, select
from starlette.types import Message

from app.database import DatabaseUnavailable
from app.dependencies import ReadSession, Session
from app.errors import NotFound

ERRORS: dict[str, tuple[Exception, int, int]] = {
    "down": (DatabaseUnavailable("no answer"), 503, 1013),
    "missing": (NotFound("There is no room 7."), 404, 1008),
    "http": (HTTPException(403, "Not yours."), 403, 1008),
}


@pytest.fixture(autouse=True)
def routes(app: FastAPI) -> None:
    @app.websocket("/read")
    async def read(websocket: WebSocket, reader: ReadSession, session: Session) -> None:
        await websocket.accept()
        for source in (reader, session):
            await websocket.send_text(await source.scalar(select(func.current_database())) or "")

    @app.websocket("/fail/{kind}")
    async def fail(websocket: WebSocket, kind: str, accept: bool = True) -> None:
        if accept:
            await websocket.accept()
        raise ERRORS[kind][0]

    @app.websocket("/own")
    async def own(websocket: WebSocket) -> None:
        await websocket.accept()
        raise WebSocketException(4000, "Mine.")

    @app.websocket("/bug")
    async def bug(websocket: WebSocket) -> None:
        raise KeyError("secret")


async def connect(app: FastAPI, path: str, query: str = "", **headers: str) -> list[Message]:
    """Return what the application sends to a client that only connects."""
    sent: list[Message] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "extensions": {"websocket.http.response": {}},
    }
    await app(scope, receive, send)
    return sent


async def test_sessions_work_in_a_websocket(app: FastAPI) -> None:
    accepted, *texts = await connect(app, "/read")
    assert accepted["type"] == "websocket.accept"
    assert [text["text"][-5:] for text in texts[:2]] == ["_test", "_test"]


@pytest.mark.parametrize("kind", ERRORS)
async def test_error_closes_a_websocket(
    app: FastAPI, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """A database error is one line of the log."""
    *_, closed = await connect(app, f"/fail/{kind}")
    assert (closed["type"], closed["code"]) == ("websocket.close", ERRORS[kind][2])
    errors = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == (["The database cannot be reached. no answer"] if kind == "down" else [])


@pytest.mark.parametrize("kind", ERRORS)
async def test_error_before_the_handshake_is_a_problem(app: FastAPI, kind: str) -> None:
    start, body = await connect(app, f"/fail/{kind}", "accept=0")
    assert (start["type"], start["status"]) == ("websocket.http.response.start", ERRORS[kind][1])
    assert dict(start["headers"])[b"content-type"] == b"application/problem+json"
    assert b'"title"' in body["body"]


async def test_closing_code_of_a_route_is_kept(app: FastAPI) -> None:
    *_, closed = await connect(app, "/own")
    assert (closed["code"], closed["reason"]) == (4000, "Mine.")


async def test_bug_reaches_the_server(app: FastAPI) -> None:
    with pytest.raises(KeyError, match="secret"):
        await connect(app, "/bug")


async def test_websocket_has_an_id_and_a_log_line_without_its_query(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="app.access")
    accepted, *_ = await connect(app, "/read", "token=secret", **{"x-request-id": "mine"})
    assert dict(accepted["headers"])[b"x-request-id"] == b"mine"
    (line,) = [vars(record) for record in caplog.records if record.name == "app.access"]
    assert (line["method"], line["path"], line["status"]) == ("WEBSOCKET", "/read", 101)
    assert "secret" not in str(line)
