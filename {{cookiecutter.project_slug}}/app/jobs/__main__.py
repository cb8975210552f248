"""Jobs that failed for good: list them, or enqueue them again."""

import argparse
import asyncio
import sys

from pgqueuer import JobId
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.config import get_settings
from app.database import Database, create_engine
from app.database.violations import DATABASE_ERRORS
from app.jobs.queue import SessionDriver, queries

ALL = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.jobs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("failed", help="list the failed jobs")
    requeue = commands.add_parser("requeue", help="run failed jobs again")
    requeue.add_argument("ids", nargs="*", type=int, metavar="ID", help="default: all of them")
    arguments = parser.parse_args()
    try:
        sys.exit(asyncio.run(run(arguments.command, getattr(arguments, "ids", []))))
    except DATABASE_ERRORS as error:
        sys.exit(f"The database cannot be used: {type(error).__name__}")


async def run(command: str, ids: list[int]) -> int | str:
    engine = create_engine(get_settings())
    try:
        async with Database(engine).sessions.begin() as session:
            return await (requeue(session, ids) if command == "requeue" else show(session))
    finally:
        await engine.dispose()


async def show(session: AsyncSession) -> int:
    queue = queries(SessionDriver(session))
    for job in await queue.list_failed_jobs(ALL, "ASC"):
        note = (await queue.job_log_history(job.id, ALL))[-1].traceback
        reason = note.exception_message if note else ""
        print(f"{job.id:<8} {job.created:%Y-%m-%d %H:%M:%S} {job.entrypoint:30} {reason}")
    return 0


async def requeue(session: AsyncSession, ids: list[int]) -> int | str:
    queue = queries(SessionDriver(session))
    failed = {job.id for job in await queue.list_failed_jobs(ALL)}
    if unknown := set(ids) - failed:
        return f"requeue: not a failed job: {', '.join(map(str, sorted(unknown)))}"
    for job_id in sorted(set(ids) or failed):
        try:
            async with session.begin_nested():
                await queue.requeue_jobs([JobId(job_id)])
        except IntegrityError:
            print(f"{job_id}: another job with its key waits", file=sys.stderr)
        else:
            print(f"{job_id}: queued")
    return 0


if __name__ == "__main__":
    main()
