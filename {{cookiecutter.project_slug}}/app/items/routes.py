"""HTTP for items."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from app import errors
from app.dependencies import ReadSession, Session
from app.items import service
from app.items.schemas import BIGINT_MAX, ItemCreate, ItemPage, ItemRead, ItemUpdate
from app.models.item import Item

ItemId = Annotated[int, Path(ge=1, le=BIGINT_MAX)]

router = APIRouter(prefix="/items", tags=["items"], responses=errors.responses(422, 503))


@router.post("", status_code=201, response_model=ItemRead, responses=errors.responses(400, 409))
async def create_item(new: ItemCreate, session: Session) -> Item:
    return await service.create(session, new)


@router.get("")
async def list_items(
    session: ReadSession,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    after: Annotated[int, Query(ge=0, le=BIGINT_MAX)] = 0,
) -> ItemPage:
    """A page in the order of ids; pass `next` as `after` to get the following one."""
    items, last_id = await service.get_page(session, after, limit)
    return ItemPage.model_validate({"items": items, "next": last_id})


@router.get("/{item_id}", response_model=ItemRead, responses=errors.responses(404))
async def read_item(item_id: ItemId, session: ReadSession) -> Item:
    return await service.get(session, item_id)


@router.patch("/{item_id}", response_model=ItemRead, responses=errors.responses(400, 404, 409))
async def update_item(item_id: ItemId, changes: ItemUpdate, session: Session) -> Item:
    """Change the fields that are sent and no other."""
    return await service.update(session, item_id, changes)


@router.delete("/{item_id}", status_code=204, responses=errors.responses(404))
async def delete_item(item_id: ItemId, session: Session) -> None:
    await service.delete(session, item_id)
