import asyncio
import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app import health, migrations


@pytest.fixture
def two_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This code knows two revisions: first, then second."""
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "first.py").write_text("revision = 'first'\ndown_revision = None\n")
    (versions / "second.py").write_text("revision = 'second'\ndown_revision = 'first'\n")
    monkeypatch.setattr(migrations, "script_directory", lambda: ScriptDirectory(str(tmp_path)))


@pytest.fixture
def interrupted() -> Iterator[asyncio.Event]:
    """Set by SIGINT, on which uvicorn ends."""
    event = asyncio.Event()
    previous = signal.signal(signal.SIGINT, lambda number, frame: event.set())
    yield event
    signal.signal(signal.SIGINT, previous)


async def set_revision(connection: AsyncConnection, revision: str) -> None:
    await connection.execute(text("DELETE FROM alembic_version"))
    await connection.execute(text("INSERT INTO alembic_version VALUES (:r)"), {"r": revision})


async def test_live_answers(client: AsyncClient) -> None:
    response = await client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "live"})


async def test_live_answers_while_the_database_is_down(
    client_without_database: AsyncClient,
) -> None:
    assert (await client_without_database.get("/health/live")).status_code == 200


async def test_ready_is_503_while_the_database_is_down(
    client_without_database: AsyncClient,
) -> None:
    response = await client_without_database.get("/health/ready")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "The database cannot be reached."


async def test_ready_after_upgrade_head(client: AsyncClient) -> None:
    response = await client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "schema_state": "current"}


@pytest.mark.usefixtures("two_revisions")
async def test_ready_at_the_last_revision(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    await set_revision(connection, "second")
    response = await client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "schema_state": "current"}


@pytest.mark.usefixtures("two_revisions")
async def test_ready_is_503_at_an_older_revision(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    await set_revision(connection, "first")
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert "alembic upgrade head" in response.json()["detail"]


@pytest.mark.usefixtures("two_revisions")
@pytest.mark.parametrize("sql", ["DELETE FROM alembic_version", "DROP TABLE alembic_version"])
async def test_ready_is_503_before_the_first_revision(
    client: AsyncClient, connection: AsyncConnection, sql: str
) -> None:
    await connection.execute(text(sql))
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert "alembic upgrade head" in response.json()["detail"]


async def test_ready_is_503_where_the_revision_cannot_be_read(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    await connection.execute(text("ALTER TABLE alembic_version RENAME version_num TO other"))
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["detail"] == "The table alembic_version cannot be read."


async def test_ready_does_not_wait_for_ever(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(session: AsyncSession) -> set[str]:
        await asyncio.Event().wait()
        return set()

    monkeypatch.setattr(health, "applied_revisions", hang)
    monkeypatch.setattr(health, "TIMEOUT", 0.01)
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert "did not answer" in response.json()["detail"]


@pytest.mark.usefixtures("two_revisions")
async def test_ready_and_logged_at_a_newer_revision(
    client: AsyncClient, connection: AsyncConnection, caplog: pytest.LogCaptureFixture
) -> None:
    await set_revision(connection, "third")
    response = await client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "schema_state": "newer"}
    assert "third" in caplog.text


async def test_sigterm_is_told_before_the_end(
    served_app: FastAPI, served_client: AsyncClient, interrupted: asyncio.Event
) -> None:
    """Others are served meanwhile, and sent elsewhere for their next request."""
    shutdown = served_app.state.shutdown
    shutdown.delay = 60
    response = await served_client.get("/health/ready")
    assert response.status_code == 200
    assert "connection" not in response.headers
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    response = await served_client.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["detail"] == "This process is about to end."
    response = await served_client.get("/docs")
    assert (response.status_code, response.headers["connection"]) == (200, "close")
    assert shutdown.timer.when() > asyncio.get_running_loop().time() + 50
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(interrupted.wait(), 5)
    interrupted.clear()
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0.05)
    assert not interrupted.is_set()  # or uvicorn would break off what it is finishing


async def test_sigterm_ends_what_has_been_told_long_enough(
    served_app: FastAPI, interrupted: asyncio.Event
) -> None:
    served_app.state.shutdown.delay = 0.01
    signal.raise_signal(signal.SIGTERM)
    await asyncio.wait_for(interrupted.wait(), 5)


async def test_sigterm_is_the_servers_where_there_is_no_delay(app: FastAPI) -> None:
    """A reload sends it after Ctrl-C, and a second SIGINT would break off the clean-up."""
    before = signal.getsignal(signal.SIGTERM)
    app.state.shutdown.delay = 0
    async with app.router.lifespan_context(app):
        assert signal.getsignal(signal.SIGTERM) == before


async def test_sigterm_is_as_before_after_the_end(app: FastAPI) -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with app.router.lifespan_context(app):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


async def test_garbage_collection_is_rare_and_leaves_out_what_was_imported(app: FastAPI) -> None:
    async with app.router.lifespan_context(app):
        pass
    assert gc.get_threshold()[0] == 10_000
    assert gc.get_freeze_count() > 10_000
