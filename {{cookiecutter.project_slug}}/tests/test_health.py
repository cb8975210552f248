"""The probes: `/health/live` and `/health/ready`."""

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from httpx import AsyncClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import migrations


@pytest.fixture
def two_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this code know two revisions: `first`, then `second`."""
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "first.py").write_text("revision = 'first'\ndown_revision = None\n")
    (versions / "second.py").write_text("revision = 'second'\ndown_revision = 'first'\n")
    monkeypatch.setattr(migrations, "script_directory", lambda: ScriptDirectory(str(tmp_path)))


async def set_revision(connection: AsyncConnection, revision: str) -> None:
    await connection.execute(text("DELETE FROM alembic_version"))
    await connection.execute(text("INSERT INTO alembic_version VALUES (:r)"), {"r": revision})


async def test_live_needs_no_database(client_without_database: AsyncClient) -> None:
    response = await client_without_database.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "live"})


async def test_not_ready_while_the_database_is_down(client_without_database: AsyncClient) -> None:
    response = await client_without_database.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["detail"] == "The database cannot be reached."


async def test_ready_after_upgrade_head(client: AsyncClient) -> None:
    response = await client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "schema_state": "current"}


@pytest.mark.usefixtures("two_revisions")
async def test_ready_at_the_newest_revision(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    await set_revision(connection, "second")
    assert (await client.get("/health/ready")).json()["schema_state"] == "current"


@pytest.mark.usefixtures("two_revisions")
async def test_not_ready_while_the_schema_is_behind(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    await set_revision(connection, "first")
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert "run `alembic upgrade head`" in response.json()["detail"]


@pytest.mark.usefixtures("two_revisions")
async def test_ready_and_logged_while_the_schema_is_newer(
    client: AsyncClient, connection: AsyncConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer deployment has migrated, and this process serves until it is replaced."""
    await set_revision(connection, "third")
    response = await client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "schema_state": "newer"}
    assert "third" in caplog.text
