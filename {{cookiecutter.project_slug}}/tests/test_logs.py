"""What is logged while a server runs the application, and what never is."""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import ResponseValidationError
from httpx import AsyncClient
from pydantic import BaseModel, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from structlog.stdlib import ProcessorFormatter

from app import logs

SECRET = "hunter2"  # noqa: S105 - that no line may show
LOGGERS = ["", "uvicorn", "uvicorn.error", "uvicorn.access", "app.access"]

Line = dict[str, Any]
Serve = Callable[..., Callable[[], list[Line]]]


@pytest.fixture
def serve(capsys: pytest.CaptureFixture[str]) -> Iterator[Serve]:
    """`serve(…)`: logging as in uvicorn's process, with its options; what reads the lines."""
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

    def configure(**options: Any) -> Callable[[], list[Line]]:
        uvicorn.Config("app.main:app", **options)
        logs.configure()
        logs.configure()  # once more, as the lifespan does after create_app()
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
    logging.getLogger("uvicorn.error").error("of the server, when all is done")
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
    assert all(line["timestamp"].endswith("Z") for line in lines)


@pytest.mark.usefixtures("route")
async def test_requests_at_once_keep_their_ids_apart(client: AsyncClient, serve: Serve) -> None:
    read = serve()
    given = [str(number) for number in range(10)]
    await asyncio.gather(
        *(client.get("/log?wait=1", headers={"x-request-id": number}) for number in given)
    )
    ids = [line["request_id"] for line in read()]
    assert sorted(ids) == sorted(given * 4)


async def test_the_next_request_inherits_nothing(
    app: FastAPI, client: AsyncClient, serve: Serve
) -> None:
    """A pipelined one is run by the task of the one before it."""

    @app.get("/user")
    async def bind() -> None:
        structlog.contextvars.bind_contextvars(user=1)

    read = serve()
    await client.get("/user")
    await client.get("/nothing")
    assert ["user" in line for line in read()] == [True, False]


async def test_a_request_is_one_line_without_its_query(client: AsyncClient, serve: Serve) -> None:
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


def test_a_requests_line_is_made_as_all_others() -> None:
    values = {"method": "GET", "path": "/", "status": 200, "duration_ms": 0.1, "client": None}
    record = logging.makeLogRecord({"name": "app.access", "msg": "request", **values})
    formatter = logs.formatter(in_terminal=False)
    assert isinstance(formatter, logs.JSONLines)
    with structlog.contextvars.bound_contextvars(request_id="mine", user="é", client="other"):
        texts = [formatter.format(record), ProcessorFormatter.format(formatter, record)]
    lines = [json.loads(text) for text in texts]
    for line in lines:
        assert line.pop("timestamp").endswith("Z")
    assert lines[0] == lines[1]
    assert lines[0]["client"] is None
    assert lines[0].keys() == {*values, "event", "logger", "level", "request_id", "user"}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_a_probe_is_no_line(client: AsyncClient, serve: Serve, path: str) -> None:
    read = serve()
    await client.get(path)
    assert read() == []


STATEMENTS = {
    "a row": "INSERT INTO items (name, description) VALUES ('a', :value), (NULL, :value)",
    "a key": "INSERT INTO items (name) VALUES (:value), (:value)",
    "an argument": "SELECT 1 + :value",
    "a literal": "SELECT CAST(CAST(:value AS text) AS integer)",
    "parameters": "SELECT CAST(:value AS text) / 1",
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
@pytest.mark.parametrize("value", [SECRET, f"\n{SECRET}", f"a\n\nb{SECRET}"])
async def test_a_traceback_shows_no_value(
    connection: AsyncConnection, serve: Serve, statement: str, value: str
) -> None:
    read = serve()
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
def test_a_traceback_shows_no_input(serve: Serve, wrong: object) -> None:
    read = serve()
    with pytest.raises(ValidationError) as error:
        Row.model_validate({"name": wrong})
    for exception in (error.value, ResponseValidationError(error.value.errors())):
        logging.getLogger("uvicorn.error").error("It failed", exc_info=exception)
    lines = read()
    assert [line["event"] for line in lines] == ["It failed"] * 2
    assert SECRET not in str(lines)


def test_a_terminal_shows_the_same_for_people() -> None:
    secret = SECRET
    try:
        raise KeyError(len(secret))
    except KeyError as error:
        fields = ("name", logging.INFO, __file__, 1, "x %s", (1,), (KeyError, error, None))
        record = logging.LogRecord(*fields)
    output = logs.formatter(in_terminal=True).format(record)
    assert re.search(r"info.*x 1.*name.*\n.*KeyError: 7", output, re.DOTALL)
    assert SECRET not in output


def test_the_servers_options_hold_for_all(serve: Serve) -> None:
    read = serve(log_level="warning", access_log=False)
    logging.getLogger("mine").info("no")
    logging.getLogger("uvicorn.error").info("no")
    logging.getLogger("app.access").error("no")
    logging.getLogger("mine").warning("yes")
    assert [line["event"] for line in read()] == ["yes"]


def test_the_servers_own_line_of_a_request_is_left_out(serve: Serve) -> None:
    """It has the query, which may hold a token."""
    read = serve()
    logging.getLogger("uvicorn.access").info("GET /?token=%s", SECRET)
    assert read() == []


def test_debugging_shows_the_probes(serve: Serve) -> None:
    serve(log_level="debug")
    assert logging.getLogger("app.access").isEnabledFor(logging.DEBUG)


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
def test_a_servers_own_configuration_stays(
    serve: Serve, caplog: pytest.LogCaptureFixture, config: dict[str, Any] | None
) -> None:
    before = logging.getLogger().handlers.copy()
    serve(log_config=config)
    assert logging.getLogger().handlers == before
    assert not structlog.is_configured()


def test_others_handlers_stay(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Those of the tests, or of what reports errors elsewhere."""
    serve()
    logging.getLogger("mine").warning("heard")
    assert "heard" in caplog.text
