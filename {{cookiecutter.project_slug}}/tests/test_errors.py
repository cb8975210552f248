"""Every error is `application/problem+json`, and no error shows internals."""

from typing import Annotated

import pytest
from asyncpg import InvalidCachedStatementError
from fastapi import FastAPI, HTTPException, Query
from httpx import AsyncClient, Response
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import DatabaseUnavailable
from app.database.violations import UNSTORABLE
from app.dependencies import Session
from app.errors import AppError, Conflict, NotFound


class Gone(AppError):
    """A new error is a class with a status."""

    status = 410


ERRORS = {
    "not found": (NotFound("There is no row 1."), 404, "There is no row 1."),
    "conflict": (Conflict("It is taken."), 409, "It is taken."),
    "own class": (Gone("It is deleted."), 410, "It is deleted."),
    "FastAPI's": (HTTPException(429, "Too fast."), 429, "Too fast."),
    "bug": (KeyError("secret"), 500, "The server failed to answer."),
    "database down": (DatabaseUnavailable("secret"), 503, "The database cannot be reached."),
    "pool in use": (PoolTimeout("secret"), 503, "The database is busy."),
    "changed table": (
        InvalidCachedStatementError("secret"),
        *(503, "Others are changing the same rows; try again."),
    ),
    "timeout": (TimeoutError("secret"), 504, "The server took too long to answer."),
}
TABLE = """
    CREATE TABLE pytest_errors (
        id int PRIMARY KEY, parent int REFERENCES pytest_errors, size smallint CHECK (size > 0)
    )
"""
INSERT = "INSERT INTO pytest_errors VALUES "
STATEMENTS = {
    "unique": (INSERT + "(1, 1, 1), (1, 1, 1)", 409, "Another one has this value."),
    "foreign key": (INSERT + "(1, 2, 1)", 409, "There is nothing with this value."),
    "CHECK": (INSERT + "(1, 1, 0)", 422, "A rule forbids this value."),
    "out of range": (INSERT + "(1, 1, 99999)", 422, UNSTORABLE),
    "bug": (INSERT + "('secret'::text, 1, 1)", 500, "The server failed to answer."),
}


@pytest.fixture(autouse=True)
async def routes(app: FastAPI, connection: AsyncConnection) -> None:
    """Add routes that fail, and one that reads a request."""
    await connection.execute(text(TABLE))

    @app.get("/pytest/raise/{kind}")
    async def fail(kind: str) -> None:
        raise ERRORS[kind][0]

    @app.get("/pytest/insert/{kind}")
    async def store(kind: str, session: Session) -> None:
        await session.execute(text(STATEMENTS[kind][0]))

    @app.post("/pytest")
    async def read(numbers: list[int], factor: Annotated[int, Query(lt=10)] = 1) -> None: ...


def assert_problem(response: Response, status: int, detail: str) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (response.status_code, body["status"], body["detail"]) == (status, status, detail)
    assert body["title"]
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)
    assert "secret" not in response.text


@pytest.mark.parametrize("kind", ERRORS)
async def test_exception_is_a_problem(client: AsyncClient, kind: str) -> None:
    _, status, detail = ERRORS[kind]
    assert_problem(await client.get(f"/pytest/raise/{kind}"), status, detail)


@pytest.mark.parametrize("kind", STATEMENTS)
async def test_database_error_is_a_problem(client: AsyncClient, kind: str) -> None:
    _, status, detail = STATEMENTS[kind]
    assert_problem(await client.get(f"/pytest/insert/{kind}"), status, detail)


async def test_unknown_path_is_404(client: AsyncClient) -> None:
    assert_problem(await client.get("/pytest/unknown"), 404, "Not Found")


async def test_wrong_method_is_405_with_the_allowed_ones(client: AsyncClient) -> None:
    response = await client.put("/pytest")
    assert_problem(response, 405, "Method Not Allowed")
    assert response.headers["allow"] == "POST"


async def test_each_wrong_value_is_named_and_not_repeated(client: AsyncClient) -> None:
    response = await client.post("/pytest?factor=10", json=[1, "secret"])
    assert_problem(response, 422, "The request is not valid.")
    locations = [error["location"] for error in response.json()["errors"]]
    assert locations == ["query.factor", "body.1"]


async def test_unreadable_body_is_400(client: AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    response = await client.post("/pytest", content=b'["\xff"]', headers=headers)
    assert_problem(response, 400, "There was an error parsing the body")
