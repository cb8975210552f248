"""Next to the least that the example's answers can cost: Starlette, asyncpg and its pool, orjson.

That pool resets a connection at each release, which is one more round trip.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PAGE = """
    SELECT id, name, description, created_at, updated_at
    FROM items WHERE id > $1 ORDER BY id LIMIT $2
"""
ONE = "SELECT id, name, description, created_at, updated_at FROM items WHERE id = $1"
INSERT = """
    INSERT INTO items (name, description) VALUES ($1, $2)
    RETURNING id, name, description, created_at, updated_at
"""


async def list_items(request: Request) -> Response:
    limit = int(request.query_params.get("limit", 50))
    after = int(request.query_params.get("after", 0))
    async with request.app.state.pool.acquire() as connection:
        rows = await connection.fetch(PAGE, after, limit + 1)
    page = [dict(row) for row in rows[:limit]]
    return answer({"items": page, "next": page[-1]["id"] if len(rows) > limit else None})


async def read_item(request: Request) -> Response:
    async with request.app.state.pool.acquire() as connection:
        row = await connection.fetchrow(ONE, request.path_params["item_id"])
    return answer(dict(row))


async def create_item(request: Request) -> Response:
    new = orjson.loads(await request.body())
    async with request.app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(INSERT, new["name"], new.get("description"))
    return answer(dict(row), 201)


def answer(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    size = int(os.environ.get("DATABASE_POOL_SIZE", 15))
    async with asyncpg.create_pool(min_size=size, max_size=size) as app.state.pool:
        yield


app = Starlette(
    routes=[
        Route("/items", list_items),
        Route("/items", create_item, methods=["POST"]),
        Route("/items/{item_id:int}", read_item),
    ],
    lifespan=lifespan,
)
