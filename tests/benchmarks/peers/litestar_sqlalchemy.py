"""Litestar with its SQLAlchemy plugin, and msgspec for the bodies."""

import os
from datetime import datetime
from typing import Annotated

import msgspec
from app.models.item import Item
from litestar import Litestar, get, post
from litestar.exceptions import NotFoundException
from litestar.plugins.sqlalchemy import (
    AsyncSessionConfig,
    EngineConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyInitPlugin,
)
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession


class ItemCreate(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    description: str | None = None


class ItemRead(msgspec.Struct):
    id: int
    name: str
    description: str | None
    created_at: datetime
    updated_at: datetime


class ItemPage(msgspec.Struct):
    items: list[ItemRead]
    next: int | None


@get("/items")
async def list_items(db_session: AsyncSession, limit: int = 50, after: int = 0) -> ItemPage:
    query = select(Item).where(Item.id > after).order_by(Item.id).limit(limit + 1)
    items = (await db_session.scalars(query)).all()
    page = msgspec.convert(items[:limit], list[ItemRead], from_attributes=True)
    return ItemPage(page, page[-1].id if len(items) > limit else None)


@get("/items/{item_id:int}")
async def read_item(db_session: AsyncSession, item_id: int) -> ItemRead:
    item = await db_session.get(Item, item_id)
    if item is None:
        raise NotFoundException
    return msgspec.convert(item, ItemRead, from_attributes=True)


@post("/items")
async def create_item(db_session: AsyncSession, data: ItemCreate) -> ItemRead:
    async with db_session.begin():
        item = Item(name=data.name, description=data.description)
        db_session.add(item)
    return msgspec.convert(item, ItemRead, from_attributes=True)


database = SQLAlchemyAsyncConfig(
    connection_string=os.environ["DATABASE_URL"],
    engine_config=EngineConfig(pool_size=15, max_overflow=0),
    session_config=AsyncSessionConfig(expire_on_commit=False),
)
app = Litestar([list_items, read_item, create_item], plugins=[SQLAlchemyInitPlugin(database)])
