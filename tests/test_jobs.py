"""`jobs=yes`: the queue and its worker, on servers, roles and poolers as in production."""

import re
import subprocess
from collections.abc import Iterator

import psutil
import pytest
import readmes
from conftest import Project, bake_with, short_directory
from load import Stage, stage
from pytest_cookies.plugin import Cookies
from servers import pgbouncer
from serving import ENVIRONMENT, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

ENQUEUE = """
import asyncio, sys
from app.config import get_settings
from app.database import Database, create_engine
from app.items.tasks import ItemRef, describe
from app.jobs.queue import enqueue
from app.models.item import Item

async def main(count):
    engine = create_engine(get_settings())
    for number in range(count):
        async with Database(engine).sessions.begin() as session:
            item = Item(name=f"item {number}")
            session.add(item)
            await session.flush()
            await enqueue(session, describe, ItemRef(item_id=item.id), key=str(number))
    await engine.dispose()

asyncio.run(main(int(sys.argv[1])))
"""
WORKER = """
import asyncio
from app.config import get_settings
from app.jobs import worker

async def main():
    shutdown = asyncio.Event()
    asyncio.get_running_loop().call_later(3, shutdown.set)
    await worker.run(get_settings(), shutdown)

asyncio.run(main())
"""
PAGE = f"{readmes.PRODUCT}/docs/jobs.md"
DESCRIBED = "SELECT count(*) FROM items WHERE description LIKE 'All about %'"
FORBIDDEN = [
    "ALTER TABLE jobs.pgqueuer ADD COLUMN mine int",
    "DROP TABLE jobs.pgqueuer_log",
    "TRUNCATE jobs.pgqueuer",
    "CREATE TABLE jobs.mine (id int)",
    "CREATE OR REPLACE FUNCTION jobs.fn_pgqueuer_changed() RETURNS trigger LANGUAGE sql AS ''",
]


@pytest.fixture(scope="module")
def project(cookies_session: Cookies) -> Project:
    """An installed project with jobs, and the tests of its wiring."""
    project = bake_with(cookies_session, {"jobs": True}).copy(short_directory())
    project.add_tests("jobs")
    (project.path / ".env").unlink()
    project.run("uv", "sync", "--quiet")
    return project


@pytest.fixture(scope="module")
def prepared(project: Project) -> Iterator[Stage]:
    with stage(project.path, short_directory()) as prepared:
        yield prepared


@pytest.fixture
def server(prepared: Stage) -> Stage:
    prepared.psql("TRUNCATE items; TRUNCATE jobs.pgqueuer")
    return prepared


def test_wiring_passes_its_tests(project: Project) -> None:
    assert " passed" in project.uv("pytest", "-q", "-n", "2")


def test_lint_and_types_are_clean(project: Project) -> None:
    project.lint()


def test_role_of_the_application_uses_the_tables_and_cannot_change_them(project: Project) -> None:
    """`uv run dev` has the roles of roles.sql."""
    project.uv("dev", "alembic", "upgrade", "head")
    project.uv("dev", "python", "-c", ENQUEUE, "3")
    project.uv("dev", "python", "-c", WORKER)
    assert project.uv("dev", "psql", "-XqAtc", DESCRIBED).strip() == "3"
    for statement in FORBIDDEN:
        said = project.uv("dev", "psql", "-U", "app", "-Xqc", statement, check=False)
        assert "permission denied" in said or "must be owner" in said, statement


def test_dev_runs_jobs_in_the_server(project: Project) -> None:
    """Without a `.env` too: the option may have come later."""
    script = "from app.config import get_settings; print(get_settings().worker_in_server)"
    assert project.uv("dev", "python", "-c", script) == "True\n"
    off = {"WORKER_IN_SERVER": "false"}
    assert project.uv("dev", "python", "-c", script, env=off) == "False\n"


RECEIPT = """
import asyncio
from app.config import get_settings
from app.database import Database, create_engine
from app.jobs.queue import enqueue
from app.orders.tasks import Receipt, send_receipt

async def main():
    engine = create_engine(get_settings())
    async with Database(engine).sessions.begin() as session:
        await enqueue(session, send_receipt, Receipt(order_id=1))
    await engine.dispose()

asyncio.run(main())
"""


def test_job_of_the_page_fails_and_is_requeued_by_its_commands(project: Project) -> None:
    copy = project.copy(short_directory())
    copy.run("uv", "sync", "--quiet")
    page = readmes.sections(PAGE)
    orders = copy.path / "app" / "orders"
    orders.mkdir()
    (orders / "__init__.py").write_text('"""Orders."""\n')
    tasks, call = readmes.fenced(page["Add a job"], "python")
    assert call.strip() in RECEIPT.replace("order_id=1", "order_id=order.id")
    (orders / "tasks.py").write_text(tasks)
    copy.lint()
    [schedule] = readmes.fenced(page["Add a schedule"], "python")
    assert schedule.strip() in (copy.path / "app/jobs/tasks.py").read_text()

    copy.replace("app/orders/tasks.py", "attempts=5", "attempts=1")
    copy.replace("app/orders/tasks.py", "-> None: ...", "-> None:\n    raise ValueError")
    copy.uv("dev", "alembic", "upgrade", "head")
    copy.uv("dev", "python", "-c", RECEIPT)
    copy.uv("dev", "python", "-c", WORKER)
    [block] = readmes.take(PAGE, "Failed jobs")
    said = copy.run("sh", "-ec", block).stdout
    assert re.search(r"^1 .* orders\.send_receipt +ValueError$", said, re.MULTILINE)
    assert said.endswith("1: queued\n")


def run(stage: Stage, *command: str, **settings: str) -> None:
    subprocess.run(
        [str(stage.project / ".venv/bin/python"), *command],
        cwd=stage.project,
        env=ENVIRONMENT | stage.urls | settings,
        check=True,
        timeout=120,
    )


def start_worker(stage: Stage) -> psutil.Popen:
    return psutil.Popen(
        [str(stage.project / ".venv/bin/worker")],
        cwd=stage.project,
        env=ENVIRONMENT | stage.urls,
        stderr=subprocess.DEVNULL,
    )


def test_application_enqueues_through_pgbouncer(server: Stage) -> None:
    with pgbouncer(server.directory, server.port, 2) as port:
        url = server.urls["DATABASE_URL"].replace(str(server.port), str(port))
        run(server, "-c", ENQUEUE, "50", DATABASE_URL=url, DATABASE_POOLER="pgbouncer")
    worker = start_worker(server)
    try:
        wait_until(lambda: server.psql(DESCRIBED) == "50", seconds=30)
    finally:
        worker.terminate()
        assert worker.wait(30) == 0


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_workers_outlive_a_restart_of_postgresql(server: Stage, mode: str) -> None:
    run(server, "-c", ENQUEUE, "300")
    workers = [start_worker(server), start_worker(server)]
    try:
        wait_until(lambda: server.psql(DESCRIBED) != "0", seconds=30)
        server.restart(mode)
        # Jobs that were running wait for the end of their heartbeat, 30 seconds, and a pause.
        wait_until(lambda: server.psql(DESCRIBED) == "300", seconds=60)
    finally:
        for worker in workers:
            worker.terminate()
            assert worker.wait(30) == 0
