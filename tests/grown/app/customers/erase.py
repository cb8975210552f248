"""Erase the customers that were deleted a year ago and have no invoices."""

import asyncio
from datetime import timedelta

from sqlalchemy import delete, func

from app.config import get_settings
from app.database import Database, create_engine
from app.models.customer import Customer
from app.web import logs


async def main() -> None:
    logs.take_over()
    engine = create_engine(get_settings())
    old = Customer.deleted_at < func.now() - timedelta(days=365)
    async with Database(engine).sessions.begin() as session:
        await session.execute(delete(Customer).where(old, ~Customer.invoices.any()))
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
