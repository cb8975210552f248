"""Queries and rules. The caller owns the transaction."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.customers.schemas import CustomerCreate
from app.database import Reader
from app.errors import NotFound
from app.models.customer import Customer


async def create(session: AsyncSession, new: CustomerCreate) -> Customer:
    customer = Customer(**new.model_dump())
    session.add(customer)
    await session.flush()
    return customer


async def find(reader: Reader, label: str) -> Sequence[Customer]:
    query = select(Customer).where(
        Customer.labels.contains([label]), Customer.deleted_at.is_(None)
    )
    return (await reader.scalars(query.order_by(Customer.name))).all()


async def delete(session: AsyncSession, customer_id: UUID) -> None:
    """Mark the customer as deleted. Raises NotFound."""
    customer = await session.get(Customer, customer_id, with_for_update=True)
    if customer is None or customer.deleted_at:
        raise NotFound(f"There is no customer {customer_id}.")
    customer.deleted_at = func.now()


BATCH = (
    select(Customer)
    .where(Customer.id > bindparam("after"), Customer.deleted_at.is_(None))
    .order_by(Customer.id)
    .limit(1000)
)


async def export(reader: Reader) -> AsyncIterator[Any]:
    """Yield every customer. Between two batches no connection is in use."""
    after = UUID(int=0)
    while rows := await reader.rows(BATCH, {"after": after}):
        for row in rows:
            yield row
        after = rows[-1].id
