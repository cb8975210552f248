"""FastAPI with asyncpg and its pool, without an ORM."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import asyncpg
from app.items.schemas import ItemCreate, ItemPage, ItemRead
from fastapi import Depends, FastAPI, HTTPException, Request
from floor import INSERT, ONE, PAGE


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(min_size=15, max_size=15) as app.state.pool:
        yield


async def get_pool(request: Request) -> Any:
    return request.app.state.pool


Pool = Annotated[Any, Depends(get_pool)]

app = FastAPI(lifespan=lifespan)


@app.get("/items")
async def list_items(pool: Pool, limit: int = 50, after: int = 0) -> ItemPage:
    rows = await pool.fetch(PAGE, after, limit + 1)
    items = [ItemRead(**row) for row in rows[:limit]]
    return ItemPage(items=items, next=items[-1].id if len(rows) > limit else None)


@app.get("/items/{item_id}")
async def read_item(item_id: int, pool: Pool) -> ItemRead:
    row = await pool.fetchrow(ONE, item_id)
    if row is None:
        raise HTTPException(404)
    return ItemRead(**row)


@app.post("/items", status_code=201)
async def create_item(new: ItemCreate, pool: Pool) -> ItemRead:
    return ItemRead(**await pool.fetchrow(INSERT, new.name, new.description))
