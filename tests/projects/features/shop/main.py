"""Makes the tables at its start, as many a project without migrations does."""

import asyncio
import os

from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from shop.customers.models import Customer
from shop.database import Base
from shop.orders.models import Line, Order, Status


async def main() -> None:
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with async_sessionmaker(engine).begin() as session:
        session.add_all(Customer(email=f"{number}@example.com") for number in range(50))
        for customer in await session.scalars(select(Customer)):
            session.add(Order(customer_id=customer.id, number=1))
        for order in await session.scalars(select(Order)):
            session.add(Line(order_id=order.id, position=1, of_status=Status.PAID))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
