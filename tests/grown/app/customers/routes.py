"""HTTP for customers."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter

from app.customers import service
from app.customers.schemas import CustomerChange, CustomerCreate, CustomerRead
from app.dependencies import ReadSession, Session
from app.models.customer import Customer
from app.types import Text
from app.web.openapi import responses

router = APIRouter(prefix="/customers", tags=["customers"], responses=responses(503, 504))


@router.post("", status_code=201, response_model=CustomerRead, responses=responses(409))
async def create(new: CustomerCreate, session: Session) -> Customer:
    return await service.create(session, new)


@router.get("", response_model=list[CustomerRead])
async def find(
    reader: ReadSession, label: Text | None = None, sort: Literal["name", "email"] = "name"
) -> Sequence[Any]:
    return await service.find(reader, label, sort)


@router.get("/export")
async def export(reader: ReadSession) -> AsyncIterator[CustomerRead]:
    """Stream every customer as a line of JSON."""
    async for row in service.export(reader):
        yield CustomerRead.model_validate(row)


@router.patch("/{customer_id}", response_model=CustomerRead, responses=responses(404, 409))
async def rename(customer_id: UUID, change: CustomerChange, session: Session) -> Customer:
    return await service.rename(session, customer_id, change)


@router.delete("/{customer_id}", status_code=204, responses=responses(404))
async def delete(customer_id: UUID, session: Session) -> None:
    await service.delete(session, customer_id)
