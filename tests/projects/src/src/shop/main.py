"""Makes the tables at its start, as many a project without migrations does."""

import asyncio
import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from shop.models import Base, Customer, Order


async def main() -> None:
    engine = create_async_engine(os.environ["DATABASE_URL"])
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with async_sessionmaker(engine).begin() as session:
        for number in range(50):
            session.add(Customer(id=number, email=f"{number}@example.com", tags=["new"]))
        await session.flush()
        session.add_all(Order(customer_id=n, price=n, details={"n": n}) for n in range(50))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
