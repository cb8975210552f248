"""Notifications of PostgreSQL: one connection of each process listens for all clients."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database.violations import DATABASE_ERRORS


class Listener:
    """Sets the event `changed` at each notification, and replaces it by a new one."""

    def __init__(self, engine: AsyncEngine, channel: str) -> None:
        self.engine, self.channel, self.changed = engine, channel, asyncio.Event()

    def wake(self, *_: object) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def run(self) -> None:
        while True:
            lost = asyncio.Event()
            try:
                async with self.engine.connect() as connection:
                    driver: Any = (await connection.get_raw_connection()).driver_connection
                    await connection.run_sync(Connection.detach)  # takes it out of the pool
                    driver.add_termination_listener(lambda _, lost=lost: lost.set())
                    await driver.add_listener(self.channel, self.wake)
                    self.wake()  # notifications may have been missed
                    await lost.wait()
            except DATABASE_ERRORS as error:
                logging.getLogger(__name__).error("Cannot listen: %s", type(error).__name__)
            await asyncio.sleep(1)


@asynccontextmanager
async def listener(engine: AsyncEngine, channel: str) -> AsyncIterator[Listener]:
    changes = Listener(engine, channel)
    task = asyncio.create_task(changes.run())
    try:
        yield changes
    finally:
        task.cancel()
        await asyncio.wait([task])


async def get_changes(connection: HTTPConnection) -> Listener:
    changes: Listener = connection.app.state.changes
    return changes


Changes = Annotated[Listener, Depends(get_changes)]
