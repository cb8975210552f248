"""Makes the tables at its start, as many a project without migrations does."""

import asyncio
import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel import SQLModel

from app.models import Customer, Order, Status


async def main() -> None:
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    async with async_sessionmaker(engine).begin() as session:
        session.add_all(Customer(id=n, email=f"{n}@example.com") for n in range(50))
        await session.flush()
        session.add_all(Order(customer_id=n, status=Status.PAID, total=n) for n in range(50))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
