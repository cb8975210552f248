"""HTTP for items."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from app.dependencies import ReadSession, Session
from app.items import service
from app.items.schemas import BIGINT_END, ItemCreate, ItemPage, ItemRead, ItemUpdate
from app.models.item import Item
from app.openapi import responses

ItemId = Annotated[int, Path(ge=1, lt=BIGINT_END)]

# What a client can do with the item that it has created.
LINKS = {
    operation: {"operationId": operation, "parameters": {"item_id": "$response.body#/id"}}
    for operation in ("read_item", "update_item", "delete_item")
}

router = APIRouter(prefix="/items", tags=["items"], responses=responses(503, 504))


@router.post(
    "",
    status_code=201,
    response_model=ItemRead,
    responses={201: {"links": LINKS}, **responses(409)},
)
async def create_item(new: ItemCreate, session: Session) -> Item:
    return await service.create(session, new)


@router.get("")
async def list_items(
    session: ReadSession,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    after: Annotated[int, Query(ge=0, lt=BIGINT_END)] = 0,
) -> ItemPage:
    """A page in the order of ids; pass `next` as `after` to get the following one."""
    items, last_id = await service.get_page(session, after, limit)
    return ItemPage.model_validate({"items": items, "next": last_id})


@router.get("/{item_id}", response_model=ItemRead, responses=responses(404))
async def read_item(item_id: ItemId, session: ReadSession) -> Item:
    return await service.get(session, item_id)


@router.patch("/{item_id}", response_model=ItemRead, responses=responses(404, 409))
async def update_item(item_id: ItemId, changes: ItemUpdate, session: Session) -> Item:
    """Change the fields that are sent and no other."""
    return await service.update(session, item_id, changes)


@router.delete("/{item_id}", status_code=204, responses=responses(404))
async def delete_item(item_id: ItemId, session: Session) -> None:
    await service.delete(session, item_id)
