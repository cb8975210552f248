"""Queries. The caller owns the transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Date, Row, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import limit_statements
from app.models.invoice import Invoice, InvoiceLine

billed = (
    select(
        cast(func.date_trunc("month", Invoice.created_at), Date).label("month"),
        Invoice.customer_id,
        func.sum(InvoiceLine.quantity * InvoiceLine.price).label("revenue"),
    )
    .join(InvoiceLine)
    .group_by("month", Invoice.customer_id)
    .cte("billed")
)
MONTHS = select(
    billed,
    func.sum(billed.c.revenue)
    .over(partition_by=billed.c.customer_id, order_by=billed.c.month)
    .label("running_total"),
    func.rank().over(partition_by=billed.c.month, order_by=billed.c.revenue.desc()).label("rank"),
).order_by(billed.c.month, "rank", billed.c.customer_id)


async def get_months(session: AsyncSession) -> Sequence[Row[Any]]:
    """Return the revenue by month and customer. May take two minutes."""
    await limit_statements(session, 120)
    return (await session.execute(MONTHS)).all()
