"""The generated application; under `/direct` its example on asyncpg itself, as in the README."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from app.errors import NotFound
from app.items.routes import ItemId
from app.items.schemas import BIGINT_END, ItemCreate, ItemPage, ItemRead
from app.main import app
from fastapi import Query, Request
from floor import INSERT, ONE, PAGE


@asynccontextmanager
async def connect(request: Request) -> AsyncIterator[Any]:
    """asyncpg's own connection, of the application's pool."""
    async with request.app.state.database.sessions() as session:
        connection = await session.connection()
        yield (await connection.get_raw_connection()).driver_connection


async def list_items(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    after: Annotated[int, Query(ge=0, lt=BIGINT_END)] = 0,
) -> ItemPage:
    async with connect(request) as connection:
        rows = await connection.fetch(PAGE, after, limit + 1)
    page = [dict(row) for row in rows[:limit]]
    next_id = page[-1]["id"] if len(rows) > limit else None
    return ItemPage.model_validate({"items": page, "next": next_id})


async def read_item(request: Request, item_id: ItemId) -> dict[str, Any]:
    async with connect(request) as connection:
        row = await connection.fetchrow(ONE, item_id)
    if row is None:
        raise NotFound(f"There is no item {item_id}.")
    return dict(row)


async def create_item(request: Request, new: ItemCreate) -> dict[str, Any]:
    async with connect(request) as connection, connection.transaction():
        row = await connection.fetchrow(INSERT, new.name, new.description)
    return dict(row)


READ = {"response_model": ItemRead}
app.add_api_route("/direct/items", list_items)
app.add_api_route("/direct/items", create_item, methods=["POST"], status_code=201, **READ)
app.add_api_route("/direct/items/{item_id}", read_item, **READ)
