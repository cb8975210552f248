"""Makes the tables at its start, as many a project without migrations does."""

import asyncio

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from config import settings
from models import Base, Customer, Order, Status


async def main() -> None:
    url = URL.create(
        "postgresql+asyncpg",
        settings.db_user,
        settings.db_password,
        settings.db_host,
        database=settings.db_name,
    )
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with async_sessionmaker(engine).begin() as session:
        for number in range(50):
            orders = [Order(total=n, status=Status.PAID if n else None) for n in range(3)]
            session.add(Customer(email=f"{number}@example.com", orders=orders))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
