"""Error responses: the details of `application/problem+json`."""

import logging
from pathlib import Path
from typing import Annotated

import pytest
from asyncpg import ConnectionDoesNotExistError, InvalidCachedStatementError
from fastapi import APIRouter, FastAPI, HTTPException, Query
from httpx import AsyncClient, Response
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.staticfiles import StaticFiles

from app.database import DatabaseUnavailable
from app.database.engine import OutcomeUnknown
from app.database.violations import CONTENDED, UNKNOWN
from app.dependencies import Session
from app.errors import AppError, Conflict, NotFound

JSON = {"content-type": "application/json"}
DOWN = "The database cannot be reached."


class Numbers(BaseModel):
    numbers: list[int]


@pytest.fixture(autouse=True)
def routes(app: FastAPI) -> None:
    """Routes that fail, and one that reads a request."""

    @app.post("/numbers", include_in_schema=False)
    async def read(body: Numbers, factor: Annotated[int, Query(lt=10)] = 1) -> Numbers:
        return body

    @app.get("/raise/{kind}", include_in_schema=False)
    async def fail(kind: str, session: Session) -> None:
        if kind == "sql":
            await session.execute(text("SELECT 'secret' / 0"))
        raise {
            "missing": NotFound("There is no such row."),
            "conflict": Conflict("It is taken."),
            "plain": AppError("It is wrong."),
            "members": HTTPException(
                409, {"code": "taken", "detail": "It is taken.", "status": 7}
            ),
            "list": HTTPException(422, [{"location": "body.name", "detail": "It is taken."}]),
            "http": HTTPException(429, "Too fast.", {"Retry-After": "5"}),
            "busy": HTTPException(503, "Too much to do."),
            "busier": HTTPException(503, "Too much to do.", {"Retry-After": "5"}),
            "unknown status": HTTPException(499, "Nobody waits."),
            "no content": HTTPException(204),
            "reset": HTTPException(205, "Clear the form."),
            "unchanged": HTTPException(304, headers={"ETag": '"1"'}),
            "outcome unknown": OutcomeUnknown("secret"),
            "bug": KeyError("secret"),
            "down": DatabaseUnavailable("no answer"),
            "pool": PoolTimeout("secret"),
            "changed": InvalidCachedStatementError("secret"),
            "lost while new": ConnectionDoesNotExistError("secret"),
            "lost": DBAPIError("secret", None, Exception(), connection_invalidated=True),
        }[kind]


def assert_problem(response: Response, status: int, detail: str) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (response.status_code, body["status"], body["detail"]) == (status, status, detail)
    assert body["type"] == "about:blank"
    assert body["title"]
    assert "secret" not in response.text


async def test_details_of_an_http_exception_are_members(client: AsyncClient) -> None:
    body = (await client.get("/raise/members")).json()
    assert (body["title"], body["detail"], body["code"]) == ("Conflict", "It is taken.", "taken")
    body = (await client.get("/raise/list")).json()
    assert body["errors"] == [{"location": "body.name", "detail": "It is taken."}]
    assert body["detail"] == body["title"] == "Unprocessable Entity"


@pytest.mark.parametrize(
    ("kind", "status", "title", "detail"),
    [
        ("plain", 400, "Bad Request", "It is wrong."),
        ("missing", 404, "Not Found", "There is no such row."),
        ("conflict", 409, "Conflict", "It is taken."),
        ("unknown status", 499, "Error", "Nobody waits."),
    ],
)
async def test_problem_has_the_title_of_its_status(
    client: AsyncClient, kind: str, status: int, title: str, detail: str
) -> None:
    response = await client.get(f"/raise/{kind}")
    assert_problem(response, status, detail)
    assert response.json() == {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
    }


async def test_http_exception_keeps_its_headers(client: AsyncClient) -> None:
    response = await client.get("/raise/http")
    assert_problem(response, 429, "Too fast.")
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize("kind", ["bug", "sql"])
async def test_bug_is_500_and_hides_its_message(client: AsyncClient, kind: str) -> None:
    response = await client.get(f"/raise/{kind}", headers={"x-request-id": "mine"})
    assert_problem(response, 500, "The server failed to answer.")
    assert response.json()["request_id"] == "mine"
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("kind", "detail", "cause"),
    [
        ("down", DOWN, "no answer"),
        ("lost", DOWN, "DBAPIError"),
        ("lost while new", DOWN, "ConnectionDoesNotExistError 08003"),
        ("pool", "The database is busy.", "TimeoutError"),
        ("changed", CONTENDED, "InvalidCachedStatementError 0A000"),
    ],
)
async def test_unavailable_database_is_503_and_logged(
    client: AsyncClient, caplog: pytest.LogCaptureFixture, kind: str, detail: str, cause: str
) -> None:
    response = await client.get(f"/raise/{kind}")
    assert_problem(response, 503, detail)
    assert response.headers["retry-after"] == "1"
    (record,) = [record for record in caplog.records if record.name == "app.web.problems"]
    assert (record.levelno, record.message) == (logging.ERROR, f"{detail} {cause}")


@pytest.mark.parametrize(("kind", "seconds"), [("busy", "1"), ("busier", "5")])
async def test_every_503_has_retry_after(client: AsyncClient, kind: str, seconds: str) -> None:
    response = await client.get(f"/raise/{kind}")
    assert_problem(response, 503, "Too much to do.")
    assert response.headers["retry-after"] == seconds


async def test_unknown_outcome_invites_no_retry(client: AsyncClient) -> None:
    """A repeated change might be stored twice."""
    response = await client.get("/raise/outcome unknown")
    assert_problem(response, 503, UNKNOWN)
    assert "retry-after" not in response.headers


@pytest.mark.parametrize(
    ("kind", "status"), [("no content", 204), ("reset", 205), ("unchanged", 304)]
)
async def test_status_without_a_body_has_none(client: AsyncClient, kind: str, status: int) -> None:
    """With one, uvicorn breaks the connection, or a client reads it as the next response."""
    response = await client.get(f"/raise/{kind}")
    assert (response.status_code, response.content) == (status, b"")
    assert response.headers.get("content-length", "0") == "0"
    assert response.headers.get("etag") == ('"1"' if status == 304 else None)


@pytest.mark.parametrize("path", ["/", "/nothing", "/%00", "/%FF", "/" + "x" * 5000])
async def test_unknown_path_is_404(client: AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404, "Not Found")


@pytest.mark.parametrize("method", ["PUT", "HEAD", "OPTIONS", "TRACE", "NONSENSE"])
async def test_wrong_method_is_405_with_the_allowed_ones(
    app: FastAPI, client: AsyncClient, method: str
) -> None:
    """The methods of every route of the path, nested routers included."""
    router = APIRouter(prefix="/numbers")
    nested = APIRouter()
    nested.add_api_route("/{number}", lambda: None, methods=["GET", "PATCH"])
    router.add_api_route("/{number}", lambda: None, methods=["DELETE"])
    router.include_router(nested)
    app.include_router(router)
    response = await client.request(method, "/numbers/1")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code == 405
    assert sorted(response.headers["allow"].split(", ")) == ["DELETE", "GET", "PATCH"]
    assert (await client.request(method, "/numbers")).headers["allow"] == "POST"


async def test_wrong_method_on_a_file_is_405(
    app: FastAPI, client: AsyncClient, tmp_path: Path
) -> None:
    app.mount("/files", StaticFiles(directory=tmp_path))
    response = await client.post("/files/one.txt")
    assert_problem(response, 405, "Method Not Allowed")
    assert response.headers["allow"] == "GET, HEAD"


async def test_each_wrong_value_is_named(client: AsyncClient) -> None:
    response = await client.post("/numbers?factor=10", json={"numbers": [1, "two"]})
    assert_problem(response, 422, "The request is not valid.")
    errors = response.json()["errors"]
    assert [error["location"] for error in errors] == ["query.factor", "body.numbers.1"]
    assert errors[0]["detail"] == "Input should be less than 10"


async def test_wrong_value_is_not_repeated(client: AsyncClient) -> None:
    response = await client.post("/numbers", json={"numbers": "hunter2"})
    assert "hunter2" not in response.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"numbers": [1}',
        b'{"numbers": [NaN, Infinity]}',
        b'{"numbers": [1.5, true, 1e400]}',
        b'{"numbers": ["\\ud800", "\\u0000"]}',
        b"[[[[[[]]]]]]",
    ],
)
async def test_wrong_body_is_422(client: AsyncClient, body: bytes) -> None:
    response = await client.post("/numbers", content=body, headers=JSON)
    assert_problem(response, 422, "The request is not valid.")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"numbers": "\xff"}', id="invalid UTF-8"),
        pytest.param(b'{"numbers": [' + b"9" * 5000 + b"]}", id="more digits than Python reads"),
        pytest.param(b"[" * 100_000, id="deeper than Python reads"),
    ],
)
async def test_unreadable_body_is_400(client: AsyncClient, body: bytes) -> None:
    response = await client.post("/numbers", content=body, headers=JSON)
    assert_problem(response, 400, "There was an error parsing the body")


async def test_body_that_is_not_json_is_422(client: AsyncClient) -> None:
    response = await client.post("/numbers", data={"numbers": "1"})
    assert_problem(response, 422, "The request is not valid.")
