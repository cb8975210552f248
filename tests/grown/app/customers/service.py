"""Queries and rules. The caller owns the transaction."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.customers.schemas import CustomerChange, CustomerCreate
from app.database import Reader
from app.errors import Conflict, NotFound
from app.models.customer import Customer

KEPT = select(Customer).where(Customer.deleted_at.is_(None))
BATCH = KEPT.where(Customer.id > bindparam("after")).order_by(Customer.id).limit(1000)


async def create(session: AsyncSession, new: CustomerCreate) -> Customer:
    customer = Customer(**new.model_dump())
    session.add(customer)
    await session.flush()
    return customer


async def find(reader: Reader, label: str | None, sort: Literal["name", "email"]) -> Sequence[Any]:
    query = KEPT.order_by(getattr(Customer, sort), Customer.id)
    if label is not None:
        query = query.where(Customer.labels.contains([label]))
    return await reader.rows(query)


async def lock(session: AsyncSession, customer_id: UUID) -> Customer:
    """Return the customer, and lock its row against other writers. Raises NotFound."""
    customer = await session.get(Customer, customer_id, with_for_update=True)
    if customer is None or customer.deleted_at:
        raise NotFound(f"There is no customer {customer_id}.")
    return customer


async def rename(session: AsyncSession, customer_id: UUID, change: CustomerChange) -> Customer:
    """Change the name. Raises NotFound or Conflict."""
    customer = await lock(session, customer_id)
    if customer.version != change.version:
        raise Conflict("Another request has changed it meanwhile.")
    customer.name = change.name
    await session.flush()
    return customer


async def delete(session: AsyncSession, customer_id: UUID) -> None:
    """Mark the customer as deleted. Raises NotFound."""
    customer = await lock(session, customer_id)
    customer.deleted_at = func.now()


async def export(reader: Reader) -> AsyncIterator[Any]:
    after = UUID(int=0)
    while rows := await reader.rows(BATCH, {"after": after}):
        for row in rows:
            yield row
        after = rows[-1].id
