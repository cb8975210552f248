"""HTTP for invoices."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from fastapi.sse import EventSourceResponse

from app.dependencies import ReadSession, Session
from app.invoices import service
from app.invoices.schemas import InvoiceCreate, InvoiceRead, Open
from app.listener import Changes
from app.models.invoice import Invoice
from app.types import Id
from app.users.dependencies import CurrentUser
from app.web.openapi import responses

router = APIRouter(prefix="/invoices", tags=["invoices"], responses=responses(503, 504))


@router.post("", status_code=201, response_model=InvoiceRead, responses=responses(401, 404, 409))
async def create(new: InvoiceCreate, user: CurrentUser, session: Session) -> Invoice:
    return await service.create(session, new, user)


@router.get("/open/events", response_class=EventSourceResponse)
async def stream_open(reader: ReadSession, changes: Changes) -> AsyncIterator[Open]:
    """Send the open invoices now, and again after each change."""
    while True:
        changed = changes.changed  # first, so that no later change is missed
        yield await service.get_open(reader)
        await changed.wait()


@router.websocket("/open/socket")
async def push_open(websocket: WebSocket, reader: ReadSession, changes: Changes) -> None:
    """Send the same until the client leaves."""
    await websocket.accept()
    left = asyncio.create_task(wait_until_left(websocket))
    with suppress(WebSocketDisconnect):
        while not left.done():
            changed = changes.changed
            await websocket.send_text((await service.get_open(reader)).model_dump_json())
            waiting = asyncio.create_task(changed.wait())
            await asyncio.wait([waiting, left], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()


async def wait_until_left(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


@router.get("/{number}", response_model=InvoiceRead, responses=responses(404))
async def read(number: Id, reader: ReadSession) -> Invoice:
    return await service.get(reader, number)


@router.post("/{number}/payment", status_code=204, responses=responses(401, 404, 409))
async def pay(number: Id, _: CurrentUser, session: Session) -> None:
    await service.pay(session, number)
