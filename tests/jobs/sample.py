"""Jobs for these tests."""

import asyncio
import os
import signal
import time
from typing import Any

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.contextvars import get_contextvars

from app.jobs.queue import enqueue, job

SEEN: list[Any] = []
STARTED: list[asyncio.Event] = []
GO_ON: list[asyncio.Event] = []
INSERT = text("INSERT INTO items (name) VALUES (:name) ON CONFLICT DO NOTHING")


class Note(BaseModel):
    name: str
    seconds: float = 0


@job()
async def store(session: AsyncSession, note: Note) -> None:
    await session.execute(INSERT, {"name": note.name})
    await asyncio.sleep(note.seconds)


@job()
async def see(session: AsyncSession, note: Note) -> None:
    SEEN.append(note.name)


@job()
async def see_context(session: AsyncSession, note: Note) -> None:
    SEEN.append(get_contextvars())


@job(attempts=3)
async def store_and_fail(session: AsyncSession, note: Note) -> None:
    SEEN.append(note.name)
    await session.execute(INSERT, {"name": note.name})
    raise ValueError(f"the secret {note.name}")


@job(attempts=2)
async def fail_once(session: AsyncSession, note: Note) -> None:
    SEEN.append(note.name)
    if len(SEEN) == 1:
        raise ValueError


@job(attempts=1, seconds=0.1)
async def take_too_long(session: AsyncSession, note: Note) -> None:
    await asyncio.sleep(60)


@job()
async def hold(session: AsyncSession, note: Note) -> None:
    STARTED[-1].set()
    await GO_ON[-1].wait()
    SEEN.append(note.name)


@job()
async def enqueue_another(session: AsyncSession, note: Note) -> None:
    await enqueue(session, store, note)


@job(attempts=2)
async def kill_worker(session: AsyncSession, note: Note) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@job(attempts=1)
async def block(session: AsyncSession, note: Note) -> None:
    time.sleep(60)  # noqa: ASYNC251 - a mistake
