"""The application with two routes that create an item, one with a job, and jobs to measure."""

import asyncio
import sys
import time
from datetime import timedelta

from app.config import get_settings
from app.database import Database, create_engine
from app.dependencies import Session
from app.items import service
from app.items.schemas import ItemCreate, ItemRead
from app.items.tasks import ItemRef, describe
from app.jobs import worker
from app.jobs.queue import enqueue, job
from app.main import create_app
from app.models.item import Item
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

app = create_app()


@app.post("/plain", status_code=201, response_model=ItemRead)
async def create(new: ItemCreate, session: Session) -> Item:
    return await service.create(session, new)


@app.post("/enqueued", status_code=201, response_model=ItemRead)
async def create_and_enqueue(new: ItemCreate, session: Session) -> Item:
    item = await service.create(session, new)
    await enqueue(session, describe, ItemRef(item_id=item.id))
    return item


class Sent(BaseModel):
    """When the transaction had committed: a job of the next transaction has it."""

    number: int = 0


@job(name="pass")
async def do_nothing(session: AsyncSession, payload: Sent) -> None:
    pass


@job(name="arrive")
async def arrive(session: AsyncSession, payload: Sent) -> None:
    print(payload.number, time.time(), flush=True)


async def send(count: int) -> None:
    """Enqueue jobs one by one, and print when each was committed."""
    engine = create_engine(get_settings())
    database = Database(engine)
    for number in range(count):
        async with database.sessions.begin() as session:
            await enqueue(session, arrive, Sent(number=number))
        print(number, time.time(), flush=True)
        await asyncio.sleep(0.02)
    await engine.dispose()


async def fill(count: int, delay: float) -> None:
    """Enqueue jobs that do nothing, all in one transaction."""
    engine = create_engine(get_settings())
    database = Database(engine)
    async with database.sessions.begin() as session:
        job_id = await enqueue(session, do_nothing, Sent(), delay=timedelta(seconds=delay))
        await session.execute(
            text(
                "INSERT INTO jobs.pgqueuer"
                " (priority, status, entrypoint, payload, execute_after)"
                " SELECT priority, status, entrypoint, payload, execute_after"
                " FROM jobs.pgqueuer, generate_series(2, :count) WHERE id = :id"
            ),
            {"count": count, "id": job_id},
        )
    await engine.dispose()


if __name__ == "__main__":
    command, *numbers = sys.argv[1:]
    if command == "send":
        asyncio.run(send(int(numbers[0])))
    elif command == "fill":
        asyncio.run(fill(int(numbers[0]), float(numbers[1])))
    else:
        worker.main()
