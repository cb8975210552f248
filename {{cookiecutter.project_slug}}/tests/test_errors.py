"""Whatever goes wrong, the answer is `application/problem+json`."""

from pathlib import Path
from typing import Annotated

import pytest
from asyncpg import ConnectionDoesNotExistError
from fastapi import APIRouter, FastAPI, HTTPException, Query
from httpx import AsyncClient, Response
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.staticfiles import StaticFiles

from app.database import DatabaseUnavailable, SchemaChanged
from app.dependencies import Session
from app.errors import Conflict, NotFound

JSON = {"content-type": "application/json"}


class Numbers(BaseModel):
    numbers: list[int]


@pytest.fixture(autouse=True)
def routes(app: FastAPI) -> None:
    """Routes that go wrong, or read what clients get wrong."""

    @app.post("/numbers", include_in_schema=False)
    async def read(body: Numbers, factor: Annotated[int, Query(lt=10)] = 1) -> Numbers:
        return body

    @app.get("/raise/{name}", include_in_schema=False)
    async def fail(name: str, session: Session) -> None:
        if name == "sql":
            await session.execute(text("SELECT 'secret' / 0"))
        raise {
            "missing": NotFound("There is no such thing."),
            "conflict": Conflict("It is taken."),
            "http": HTTPException(429, "Too fast.", {"Retry-After": "5"}),
            "busy": HTTPException(503, "Too much to do."),
            "busier": HTTPException(503, "Too much to do.", {"Retry-After": "5"}),
            "slow": TimeoutError("secret"),
            "bug": KeyError("secret"),
            "down": DatabaseUnavailable("secret"),
            "pool": PoolTimeout("secret"),
            "changed": SchemaChanged("secret"),
            "lost while new": ConnectionDoesNotExistError("secret"),
            "lost": DBAPIError("secret", None, Exception(), connection_invalidated=True),
        }[name]


def assert_problem(response: Response, status: int, detail: str) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (response.status_code, body["status"], body["detail"]) == (status, status, detail)
    assert body.keys() >= {"type", "title"}


async def test_a_missing_thing_is_404(client: AsyncClient) -> None:
    assert_problem(await client.get("/raise/missing"), 404, "There is no such thing.")


async def test_a_conflict_is_409(client: AsyncClient) -> None:
    assert_problem(await client.get("/raise/conflict"), 409, "It is taken.")


async def test_an_http_exception_keeps_its_status_and_headers(client: AsyncClient) -> None:
    response = await client.get("/raise/http")
    assert_problem(response, 429, "Too fast.")
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize("kind", ["bug", "sql"])
async def test_a_bug_is_500_and_hides_what_happened(client: AsyncClient, kind: str) -> None:
    response = await client.get(f"/raise/{kind}")
    assert_problem(response, 500, "The server failed to answer.")
    assert "secret" not in response.text


@pytest.mark.parametrize("kind", ["down", "lost", "lost while new"])
async def test_a_database_out_of_reach_is_503(client: AsyncClient, kind: str) -> None:
    response = await client.get(f"/raise/{kind}")
    assert_problem(response, 503, "The database cannot be reached.")
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(("kind", "seconds"), [("busy", "1"), ("busier", "5")])
async def test_every_503_says_when_to_try_again(
    client: AsyncClient, kind: str, seconds: str
) -> None:
    response = await client.get(f"/raise/{kind}")
    assert_problem(response, 503, "Too much to do.")
    assert response.headers["retry-after"] == seconds


async def test_what_takes_too_long_is_504(client: AsyncClient) -> None:
    response = await client.get("/raise/slow")
    assert_problem(response, 504, "The server took too long to answer.")


async def test_a_table_that_a_migration_changed_is_503(client: AsyncClient) -> None:
    problem = 503, "Others are changing the same; try again."
    assert_problem(await client.get("/raise/changed"), *problem)


async def test_a_busy_database_is_503(client: AsyncClient) -> None:
    assert_problem(await client.get("/raise/pool"), 503, "The database is busy.")


@pytest.mark.parametrize("path", ["/", "/nothing", "/%00", "/%FF", "/" + "x" * 5000])
async def test_an_unknown_path_is_404(client: AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404, "Not Found")


@pytest.mark.parametrize("method", ["PUT", "HEAD", "OPTIONS", "TRACE", "NONSENSE"])
async def test_a_wrong_method_is_405_and_says_which_work(
    app: FastAPI, client: AsyncClient, method: str
) -> None:
    """All of them, wherever their routes are."""
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


async def test_a_wrong_method_on_a_file_is_405(
    app: FastAPI, client: AsyncClient, tmp_path: Path
) -> None:
    app.mount("/files", StaticFiles(directory=tmp_path))
    response = await client.post("/files/one.txt")
    assert_problem(response, 405, "Method Not Allowed")
    assert response.headers["allow"] == "GET, HEAD"


async def test_each_fault_of_a_request_is_named(client: AsyncClient) -> None:
    response = await client.post("/numbers?factor=10", json={"numbers": [1, "two"]})
    assert_problem(response, 422, "The request is not valid.")
    faults = response.json()["errors"]
    assert [fault["location"] for fault in faults] == ["query.factor", "body.numbers.1"]
    assert faults[0]["detail"] == "Input should be less than 10"


async def test_a_refused_value_is_not_repeated(client: AsyncClient) -> None:
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
async def test_a_wrong_body_is_422(client: AsyncClient, body: bytes) -> None:
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
async def test_an_unreadable_body_is_400(client: AsyncClient, body: bytes) -> None:
    response = await client.post("/numbers", content=body, headers=JSON)
    assert_problem(response, 400, "There was an error parsing the body")


async def test_a_body_that_is_not_json_is_422(client: AsyncClient) -> None:
    response = await client.post("/numbers", data={"numbers": "1"})
    assert_problem(response, 422, "The request is not valid.")
