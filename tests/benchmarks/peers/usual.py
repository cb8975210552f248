"""The example as most templates have it: a transaction around each read, and nothing besides."""

import os
from collections.abc import AsyncIterator
from typing import Annotated

from app.items.schemas import ItemCreate, ItemPage, ItemRead
from app.models.item import Item
from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=15, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]

app = FastAPI()


@app.get("/items")
async def list_items(session: Session, limit: int = 50, after: int = 0) -> ItemPage:
    query = select(Item).where(Item.id > after).order_by(Item.id).limit(limit + 1)
    items = (await session.scalars(query)).all()
    last_id = items[limit - 1].id if len(items) > limit else None
    return ItemPage.model_validate({"items": items[:limit], "next": last_id})


@app.get("/items/{item_id}", response_model=ItemRead)
async def read_item(item_id: int, session: Session) -> Item | None:
    return await session.get(Item, item_id)


@app.post("/items", response_model=ItemRead, status_code=201)
async def create_item(new: ItemCreate, session: Session) -> Item:
    item = Item(**new.model_dump())
    session.add(item)
    await session.commit()
    return item
