"""Jobs, their schedules, and the queue: a transaction enqueues a job together with its rows."""

import inspect
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from pgqueuer import Queries
from pgqueuer.adapters.persistence import qb
from pgqueuer.domain.settings import DBSettings
from pydantic import BaseModel
from pydantic_settings import PydanticBaseSettingsSource as Source
from sqlalchemy import CursorResult
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from structlog.contextvars import get_contextvars

P = TypeVar("P", bound=BaseModel)
Function = Callable[[AsyncSession, P], Awaitable[None]]


class Names(DBSettings):
    """The names of pgqueuer's tables. DBSettings would also read variables such as CHANNEL."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: object, init_settings: Source, *_: Source, **__: Source
    ) -> tuple[Source]:
        return (init_settings,)


NAMES = Names(db_schema="jobs")
BUILDERS = (
    qb.QueryBuilderEnvironment(NAMES),
    qb.QueryQueueBuilder(NAMES),
    qb.QuerySchedulerBuilder(NAMES),
)


@dataclass(frozen=True)
class Job(Generic[P]):
    """A function that the worker runs, with its limits."""

    name: str
    function: Function[P]
    payload: type[P]
    seconds: float
    attempts: int


JOBS: dict[str, Job[Any]] = {}
SCHEDULES: list[tuple[str, Job[Any], BaseModel]] = []


def job(
    *, name: str = "", seconds: float = 60, attempts: int = 10
) -> Callable[[Function[P]], Job[P]]:
    """Make a job of `async def function(session, payload: Model)`, in a module named `tasks`.

    Its transaction commits when it returns. It is repeated after an exception, or after
    `seconds`, at most `attempts` times in all. Queued jobs keep the name of their function, so a
    renamed function needs its old `name`: "items.describe" for app.items.tasks.describe.
    """

    def register(function: Function[P]) -> Job[P]:
        place = function.__module__.removeprefix("app.").removesuffix(".tasks")
        _, payload = inspect.signature(function, eval_str=True).parameters.values()
        new = Job(
            name or f"{place}.{function.__name__}",
            function,
            payload.annotation,
            seconds,
            attempts,
        )
        if JOBS.setdefault(new.name, new) is not new:
            raise ValueError(f"two jobs have the name {new.name}")
        return new

    return register


def schedule(cron: str, job: Job[P], payload: P) -> None:
    """Enqueue a job at the times of a cron expression, in UTC, once for all workers."""
    SCHEDULES.append((cron, job, payload))


async def enqueue(
    session: AsyncSession,
    job: Job[P],
    payload: P,
    *,
    key: str | None = None,
    delay: timedelta | None = None,
    priority: int = 0,
) -> int | None:
    """Enqueue a job, which runs after this transaction's commit and `delay`. Returns its id.

    Does nothing, and returns None, while a job of this kind with the same `key` waits or runs.
    Among the jobs that are due, those of the highest priority and then the oldest start first.
    """
    request_id = get_contextvars().get("request_id")
    [job_id] = await queries(SessionDriver(session)).enqueue(
        job.name,
        payload.model_dump_json().encode(),
        priority,
        execute_after=delay,
        dedupe_key=None if key is None else f"{job.name} {key}",
        headers={"request_id": request_id} if request_id else None,
        on_conflict="skip",
    )
    return job_id


class SessionDriver:
    """Runs pgqueuer's statements in the transaction of a session."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def fetch(self, query: str, *values: Any) -> list[dict[str, Any]]:
        return await self.session.run_sync(fetch, query, values)

    async def execute(self, query: str, *values: Any) -> None:
        await self.session.run_sync(run, query, values)


def run(session: Session, query: str, values: tuple[Any, ...]) -> CursorResult[Any]:
    return session.connection().exec_driver_sql(query, values)


def fetch(session: Session, query: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
    rows = run(session, query, values).all()
    return [{name: as_text(value) for name, value in row._asdict().items()} for row in rows]


def as_text(value: Any) -> Any:
    """Return JSON as text, as pgqueuer reads it. SQLAlchemy's connections decode it."""
    return json.dumps(value) if isinstance(value, dict) else value


def queries(driver: Any) -> Queries:
    """Return pgqueuer's statements on a driver of its own, or on a SessionDriver."""
    return Queries(driver, *BUILDERS)
