"""Every error of a route is `application/problem+json`, and no error shows internals."""

from typing import Annotated

import pytest
from asyncpg import InvalidCachedStatementError
from conftest import client_of
from fastapi import FastAPI, HTTPException, Query
from httpx import AsyncClient, Response
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.database import DatabaseUnavailable, violations
from app.dependencies import Session
from app.errors import AppError, Conflict, NotFound, Unprocessable


class Gone(AppError):
    """A new error is a class with a status."""

    status = 410


def sqlstate(code: str) -> str:
    """Return SQL that fails as PostgreSQL does with this code."""
    return f"DO $$ BEGIN RAISE 'secret' USING ERRCODE = '{code}'; END $$"


BUG = "The server failed to answer."
ERRORS: dict[str, tuple[Exception | str, int, str]] = {
    "not found": (NotFound("There is no row 1."), 404, "There is no row 1."),
    "unprocessable": (Unprocessable("It is closed."), 422, "It is closed."),
    "conflict": (Conflict("It is taken."), 409, "It is taken."),
    "own class": (Gone("It is deleted."), 410, "It is deleted."),
    "FastAPI's": (HTTPException(429, "Too fast."), 429, "Too fast."),
    "bug": (KeyError("secret"), 500, BUG),
    "bug in SQL": ("SELECT 'secret' / 0", 500, BUG),
    "unique": (sqlstate("23505"), 409, "Another record has this value."),
    "foreign key": (sqlstate("23503"), 409, "This value refers to a record that does not exist."),
    "CHECK": (sqlstate("23514"), 422, "This value breaks a rule."),
    "too large": (sqlstate("22003"), 422, violations.UNSTORABLE),
    "deadlock": (sqlstate("40P01"), 503, violations.CONTENDED),
    "changed type": (InvalidCachedStatementError("secret"), 503, violations.CONTENDED),
    "pool in use": (PoolTimeout("secret"), 503, "The database is busy."),
    "database down": (DatabaseUnavailable("secret"), 503, "The database cannot be reached."),
    "statement timeout": (sqlstate("57014"), 504, "The server took too long to answer."),
    "timeout of another service": (TimeoutError("secret"), 500, BUG),
}


@pytest.fixture
def client(app: FastAPI) -> AsyncClient:
    """A client that receives a 500 for a bug."""
    return client_of(app, raise_bugs=False)


@pytest.fixture(autouse=True)
def routes(app: FastAPI) -> None:
    """Add a route that fails, and one that reads a request."""

    @app.get("/pytest/{kind}")
    async def fail(kind: str, session: Session) -> None:
        error, *_ = ERRORS[kind]
        if isinstance(error, Exception):
            raise error
        await session.execute(text(error))

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
async def test_error_is_a_problem(client: AsyncClient, kind: str) -> None:
    _, status, detail = ERRORS[kind]
    assert_problem(await client.get(f"/pytest/{kind}"), status, detail)


async def test_bug_in_a_route_raises_in_a_test(app: FastAPI) -> None:
    with pytest.raises(KeyError, match="secret"):
        await client_of(app).get("/pytest/bug")


async def test_unknown_path_is_404(client: AsyncClient) -> None:
    assert_problem(await client.get("/unknown"), 404, "Not Found")


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
