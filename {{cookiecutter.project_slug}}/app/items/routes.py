"""The routes of items."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.dependencies import ReadSession, Session
from app.items import service
from app.items.schemas import ItemCreate, ItemPage, ItemRead, ItemUpdate
from app.models.item import Item
from app.types import Cursor, Id
from app.web.openapi import responses

router = APIRouter(prefix="/items", tags=["items"], responses=responses(503, 504))


@router.post("", status_code=201, response_model=ItemRead, responses=responses(409))
async def create(new: ItemCreate, session: Session) -> Item:
    return await service.create(session, new)


@router.get("", response_model=ItemPage)
async def read_page(
    reader: ReadSession, limit: Annotated[int, Query(ge=1, le=100)] = 50, after: Cursor = 0
) -> Any:
    items, last_id = await service.read_page(reader, after=after, limit=limit)
    return {"items": items, "next": last_id}


@router.get("/{item_id}", response_model=ItemRead, responses=responses(404))
async def read(item_id: Id, reader: ReadSession) -> Any:
    return await service.read(reader, item_id)


@router.patch("/{item_id}", response_model=ItemRead, responses=responses(404, 409))
async def update(item_id: Id, changes: ItemUpdate, session: Session) -> Item:
    """Change only the fields that are sent."""
    return await service.update(session, item_id, changes)


@router.delete("/{item_id}", status_code=204, responses=responses(404))
async def delete(item_id: Id, session: Session) -> None:
    await service.delete(session, item_id)
