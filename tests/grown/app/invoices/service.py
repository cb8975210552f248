"""Queries and rules. The caller owns the transaction."""

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app.database import Reader
from app.errors import Conflict, NotFound
from app.invoices.schemas import InvoiceCreate, Open
from app.models.invoice import Invoice, InvoiceLine, Status, Tag
from app.models.product import Product
from app.models.user import User

CHANNEL = "invoices"
BY_NUMBER = select(Invoice).where(Invoice.number == bindparam("number"))
WHOLE = BY_NUMBER.options(*map(selectinload, [Invoice.customer, Invoice.lines, Invoice.tags]))
OPEN = (
    select(
        func.count(Invoice.id.distinct()).label("invoices"),
        func.coalesce(func.sum(InvoiceLine.quantity * InvoiceLine.price), 0).label("total"),
    )
    .join(InvoiceLine)
    .where(Invoice.status == Status.OPEN)
)


async def create(session: AsyncSession, new: InvoiceCreate, user: User) -> Invoice:
    ids = {line.product_id for line in new.lines}
    found = await session.scalars(select(Product).where(Product.id.in_(ids)))
    products = {product.id: product for product in found}
    if missing := ids - products.keys():
        raise NotFound(f"There is no product {min(missing)}.")
    invoice = Invoice(
        customer_id=new.customer_id,
        created_by=user.id,
        due_at=new.due_at,
        lines=[
            InvoiceLine(
                position=position,
                product_id=line.product_id,
                quantity=line.quantity,
                price=products[line.product_id].price,
            )
            for position, line in enumerate(new.lines, 1)
        ],
        tags=await get_tags(session, new.tags),
    )
    session.add(invoice)
    await session.flush()
    await session.execute(select(func.pg_notify(CHANNEL, "")))  # sent by the commit
    await session.refresh(invoice, ["customer"])
    return invoice


async def get_tags(session: AsyncSession, names: list[str]) -> list[Tag]:
    """Return the tags with these names. New ones are created."""
    values = [{"name": name} for name in sorted(set(names))]
    if values:
        await session.execute(insert(Tag).values(values).on_conflict_do_nothing())
    return [*await session.scalars(select(Tag).where(Tag.name.in_(names)).order_by(Tag.name))]


async def get(reader: Reader, number: int) -> Invoice:
    """Return the invoice with its relations. Raises NotFound."""
    invoice = await reader.scalar(WHOLE, {"number": number})
    if invoice is None:
        raise NotFound(f"There is no invoice {number}.")
    return invoice


async def pay(session: AsyncSession, number: int) -> None:
    """Mark the invoice as paid. Raises NotFound or Conflict."""
    invoice = await session.scalar(BY_NUMBER.with_for_update(), {"number": number})
    if invoice is None:
        raise NotFound(f"There is no invoice {number}.")
    if invoice.status is Status.PAID:
        raise Conflict(f"Invoice {number} is already paid.")
    invoice.status = Status.PAID
    await session.execute(select(func.pg_notify(CHANNEL, "")))


async def get_open(reader: Reader) -> Open:
    (row,) = await reader.rows(OPEN)
    return Open.model_validate(row)
