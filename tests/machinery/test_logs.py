"""The log of a server that runs the application, and the secrets that it never shows."""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import structlog
import uvicorn
from fastapi import BackgroundTasks, FastAPI
from fastapi.exceptions import ResponseValidationError
from httpx import AsyncClient
from pydantic import BaseModel, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.types import Message
from structlog.dev import ConsoleRenderer, plain_traceback

from app.web import logs

SECRET = "hunter2"  # noqa: S105 - that no line may show
LOGGERS = ["", "uvicorn", "uvicorn.error", "uvicorn.access", "app.access"]
LOGGERS += ["gunicorn.error", "granian.access"]

Line = dict[str, Any]
Serve = Callable[..., Callable[[], list[Line]]]


@pytest.fixture
def serve(capsys: pytest.CaptureFixture[str]) -> Iterator[Serve]:
    """`serve(…)`: log as in uvicorn's process with these options. Returns a reader of lines."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [
        (logger, logger.handlers.copy(), logger.level, logger.propagate, logger.disabled)
        for logger in loggers
    ]

    def read() -> list[Line]:
        output = capsys.readouterr()
        assert output.out == ""
        lines = [json.loads(line) for line in output.err.splitlines()]
        return [line for line in lines if line["logger"] != "httpx"]  # the tests' client

    def configure(
        server: Callable[[], None] | None = None, **options: Any
    ) -> Callable[[], list[Line]]:
        if server:
            server()
            logs.take_over(**options)
            return read
        uvicorn.Config("app.main:app", **options)
        logs.configure()
        logs.configure()  # again, as the lifespan does after create_app()
        return read

    yield configure
    structlog.reset_defaults()
    for logger, handlers, level, propagate, disabled in before:
        logger.handlers, logger.propagate, logger.disabled = handlers, propagate, disabled
        logger.setLevel(level)


@pytest.fixture
def route(app: FastAPI) -> None:
    """A route that logs in three ways."""

    @app.get("/log")
    async def log(wait: bool = False) -> None:
        if wait:
            await asyncio.sleep(0)
        logging.getLogger("standard").warning("one %s", "line", extra={"size": 1})
        structlog.get_logger("native").info("two %s", "lines", size=2)
        logging.getLogger("sqlalchemy.engine").warning("three")


@pytest.mark.usefixtures("route")
async def test_each_line_of_a_request_has_its_id(client: AsyncClient, serve: Serve) -> None:
    read = serve()
    await client.get("/log", headers={"x-request-id": "mine"})
    logging.getLogger("uvicorn.error").error("of the server, after the response")
    lines = read()
    assert [line["logger"] for line in lines] == [
        "standard",
        "native",
        "sqlalchemy.engine",
        "app.access",
        "uvicorn.error",
    ]
    assert {line["request_id"] for line in lines} == {"mine"}
    assert [line["event"] for line in lines[:2]] == ["one line", "two lines"]
    assert [line["size"] for line in lines[:2]] == [1, 2]
    assert [line["level"] for line in lines[:2]] == ["warning", "info"]
    assert all(line["timestamp"].endswith("+00:00") for line in lines)


@pytest.mark.usefixtures("route")
async def test_concurrent_requests_keep_their_ids_apart(client: AsyncClient, serve: Serve) -> None:
    read = serve()
    given = [str(number) for number in range(10)]
    await asyncio.gather(
        *(client.get("/log?wait=1", headers={"x-request-id": number}) for number in given)
    )
    ids = [line["request_id"] for line in read()]
    assert sorted(ids) == sorted(given * 4)


async def test_next_request_inherits_no_fields(
    app: FastAPI, client: AsyncClient, serve: Serve
) -> None:
    """The task of a request also runs the pipelined request after it."""

    @app.get("/user")
    async def bind() -> None:
        structlog.contextvars.bind_contextvars(user=1)

    read = serve()
    await client.get("/user")
    await client.get("/nothing")
    assert ["user" in line for line in read()] == [True, False]


async def test_request_is_one_line_without_its_query(client: AsyncClient, serve: Serve) -> None:
    read = serve()
    await client.get(f"/nothing%0A%1B%22?token={SECRET}", headers={"authorization": SECRET})
    (line,) = read()
    assert line.pop("duration_ms") > 0
    assert line.keys() - {"timestamp", "request_id"} == {
        "event",
        "level",
        "logger",
        "method",
        "path",
        "status",
        "client",
    }
    assert (line["method"], line["path"], line["status"]) == ("GET", "/nothing%0A%1B%22", 404)
    assert line["client"] == "127.0.0.1"


async def test_duration_is_in_milliseconds(
    app: FastAPI, client: AsyncClient, serve: Serve
) -> None:
    @app.get("/slow")
    async def slow() -> None:
        await asyncio.sleep(0.05)

    read = serve()
    await client.get("/slow")
    (line,) = read()
    assert 50 <= line["duration_ms"] < 5000


async def test_background_task_does_not_count_as_duration(
    app: FastAPI, client: AsyncClient, serve: Serve
) -> None:
    """The client has its response before the task begins."""

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(asyncio.sleep, 0.1)

    read = serve()
    start = perf_counter()
    await client.get("/later")
    total = (perf_counter() - start) * 1000
    (line,) = read()
    assert line["duration_ms"] < total - 90


async def test_duration_includes_the_transfer_of_the_response(app: FastAPI, serve: Serve) -> None:
    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(0.05)

    read = serve()
    request = {"type": "http", "method": "GET", "path": "/nothing", "query_string": b""}
    await app(request | {"headers": []}, receive, send)
    (line,) = read()
    assert line["duration_ms"] > 45


async def test_request_without_a_response_is_logged(
    app: FastAPI, client: AsyncClient, serve: Serve
) -> None:
    """For example because the server cancelled it."""

    @app.get("/cancelled")
    async def cancel() -> None:
        raise asyncio.CancelledError

    read = serve()
    with pytest.raises(asyncio.CancelledError):
        await client.get("/cancelled")
    (line,) = read()
    assert line["status"] is None
    assert line["duration_ms"] > 0


def test_fields_of_a_line_win_over_bound_fields() -> None:
    values = {"method": "GET", "path": "/", "status": 200, "duration_ms": 0.1, "client": None}
    record = logging.makeLogRecord({"name": "app.access", "msg": "request", **values})
    with structlog.contextvars.bound_contextvars(request_id="mine", user="é", client="other"):
        line = json.loads(logs.Formatter(in_terminal=False).format(record))
    assert line.items() >= {**values, "request_id": "mine", "user": "é"}.items()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_probe_is_not_logged(client: AsyncClient, serve: Serve, path: str) -> None:
    read = serve()
    await client.get(path)
    assert read() == []


STATEMENTS = {
    "a row": "INSERT INTO items (name, description) VALUES ('a', :value), (NULL, :value)",
    "a key": "INSERT INTO items (name) VALUES (:value), (:value)",
    "an argument": "SELECT 1 + :value",
    "a literal": "SELECT CAST(CAST(:value AS text) AS integer)",
    "parameters": "SELECT CAST(:value AS text) / 1",
    "an array": "SELECT CAST(CAST(:value AS text) AS int[])",
    "a search": "SELECT to_tsquery(CAST(:value AS text) || '&|')",
    "an exception of a function": "SELECT pg_temp.fail(CAST(:value AS text))",
}


FAIL = """
    CREATE FUNCTION pg_temp.fail(value text) RETURNS int LANGUAGE plpgsql
    AS $$ BEGIN RAISE 'it is %', value; END $$
"""


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
@pytest.mark.parametrize("value", [SECRET, f"\n{SECRET}", f"a\n\nb{SECRET}"])
async def test_traceback_shows_no_value_of_a_row(
    connection: AsyncConnection, serve: Serve, statement: str, value: str
) -> None:
    read = serve()
    await connection.execute(text(FAIL))
    with pytest.raises(DBAPIError) as error:
        await connection.execute(text(statement), {"value": value})
    logging.getLogger("uvicorn.error").error("It failed\n", exc_info=error.value)
    (line,) = read()
    assert line["event"] == "It failed"
    assert "test_logs.py" in line["exception"]
    assert "[SQL: " in line["exception"]
    assert SECRET not in str(line)


class Row(BaseModel):
    name: int


@pytest.mark.parametrize("wrong", [SECRET, [SECRET], {"a": SECRET}])
def test_traceback_shows_no_input(serve: Serve, wrong: object) -> None:
    read = serve()
    with pytest.raises(ValidationError) as error:
        Row.model_validate({"name": wrong})
    for exception in (error.value, ResponseValidationError(error.value.errors())):
        logging.getLogger("uvicorn.error").error("It failed", exc_info=exception)
    lines = read()
    assert [line["event"] for line in lines] == ["It failed"] * 2
    assert SECRET not in str(lines)


async def test_traceback_names_a_missing_column(connection: AsyncConnection, serve: Serve) -> None:
    """A message that holds no value helps."""
    read = serve()
    with pytest.raises(DBAPIError) as error:
        await connection.execute(text("SELECT nope"))
    logging.getLogger("uvicorn.error").error("It failed", exc_info=error.value)
    (line,) = read()
    assert 'UndefinedColumnError: column "nope" does not exist' in line["exception"]


def test_terminal_gets_readable_text_without_variables() -> None:
    secret = SECRET
    try:
        raise KeyError(len(secret))
    except KeyError as error:
        fields = ("name", logging.INFO, __file__, 1, "x %s", (1,), (KeyError, error, None))
        record = logging.LogRecord(*fields)
    output = logs.Formatter(in_terminal=True).format(record)
    assert re.search(r"info.*x 1.*name.*\n.*KeyError: 7", output, re.DOTALL)
    assert SECRET not in output


def test_terminal_gets_plain_tracebacks() -> None:
    """The tracebacks of the package `rich` may show variables."""
    formatter = logs.Formatter(in_terminal=True)
    assert isinstance(formatter.render, partial)
    renderer = formatter.render.func
    assert isinstance(renderer, ConsoleRenderer)
    assert renderer.exception_formatter is plain_traceback


def test_copies_of_the_message_are_left_out(serve: Serve) -> None:
    read = serve()
    extra = {"color_message": "\x1b[1mStarted\x1b[0m"}
    logging.getLogger("uvicorn.error").info("Started\n", extra=extra)
    (line,) = read()
    assert line.keys() == {"event", "level", "logger", "timestamp"}
    assert line["event"] == "Started"


def test_options_of_the_server_apply_to_every_logger(serve: Serve) -> None:
    read = serve(log_level="warning", access_log=False)
    logging.getLogger("mine").info("no")
    logging.getLogger("uvicorn.error").info("no")
    logging.getLogger("app.access").error("no")
    logging.getLogger("mine").warning("yes")
    assert [line["event"] for line in read()] == ["yes"]


def test_access_line_of_the_server_is_left_out(serve: Serve) -> None:
    """It shows the query, which may hold a token."""
    read = serve()
    logging.getLogger("uvicorn.access").info("GET /?token=%s", SECRET)
    assert read() == []


async def test_log_level_debug_shows_probes(client: AsyncClient, serve: Serve) -> None:
    read = serve(log_level="debug")
    await client.get("/health/live")
    access = [line for line in read() if line["logger"] == "app.access"]
    assert [line["path"] for line in access] == ["/health/live"]


@pytest.mark.parametrize(
    "config",
    [
        None,
        {
            "version": 1,
            "handlers": {"mine": {"class": "logging.NullHandler"}},
            "loggers": {"uvicorn": {"handlers": ["mine"]}},
            "disable_existing_loggers": False,
        },
    ],
    ids=["none", "its own"],
)
def test_log_configuration_of_the_server_stays(
    serve: Serve, caplog: pytest.LogCaptureFixture, config: dict[str, Any] | None
) -> None:
    before = logging.getLogger().handlers.copy()
    serve(log_config=config)
    assert logging.getLogger().handlers == before
    assert not structlog.is_configured()


def test_other_handlers_stay(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """For example the handler of an error tracker."""
    serve()
    logging.getLogger("mine").warning("heard")
    assert "heard" in caplog.text


def another_server() -> None:
    """Log as gunicorn does with a worker of uvicorn: two loggers share a list of handlers."""
    shared: list[logging.Handler] = [logging.StreamHandler()]
    for name in ("gunicorn.error", "uvicorn.error", "granian.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = shared, False
        logger.setLevel("INFO")


async def test_explicit_call_takes_another_server_over(client: AsyncClient, serve: Serve) -> None:
    read = serve(another_server)
    logs.take_over()  # a second call changes nothing
    for name in ("gunicorn.error", "uvicorn.error", "mine"):
        logging.getLogger(name).info("heard")
    logging.getLogger("granian.access").info("GET /?token=%s", SECRET)
    await client.get("/nothing")
    lines = [(line["logger"], line["event"]) for line in read()]
    assert lines == [
        ("gunicorn.error", "heard"),
        ("uvicorn.error", "heard"),
        ("mine", "heard"),
        ("app.access", "request"),
    ]


def test_explicit_call_takes_a_level(serve: Serve) -> None:
    read = serve(another_server, level="WARNING")
    logging.getLogger("mine").info("no")
    structlog.get_logger("mine").warning("yes")
    assert [line["event"] for line in read()] == ["yes"]


def test_explicit_call_leaves_handlers_of_other_kinds(
    serve: Serve, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    logger = logging.getLogger("gunicorn.error")
    handler = logging.FileHandler(tmp_path / "log", delay=True)

    def server() -> None:
        logger.handlers = [handler]

    read = serve(server)
    logger.warning("heard")
    handler.close()
    assert (tmp_path / "log").read_text() == "heard\n"
    assert [line["event"] for line in read()] == ["heard"]
    assert "heard" in caplog.text


def test_query_of_a_websocket_is_not_logged(serve: Serve) -> None:
    read = serve()
    line = '%s - "WebSocket %s" [accepted]'  # as uvicorn logs it
    logging.getLogger("uvicorn.error").info(line, "127.0.0.1:1", f"/ws?token={SECRET}")
    assert [line["event"] for line in read()] == ['127.0.0.1:1 - "WebSocket /ws" [accepted]']
