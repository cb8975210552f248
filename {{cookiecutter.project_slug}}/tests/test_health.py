"""The probes: `/health/live` and `/health/ready`."""

import pytest
from httpx import AsyncClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


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


async def test_not_ready_while_the_schema_is_behind(
    client: AsyncClient, connection: AsyncConnection
) -> None:
    await connection.execute(text("DELETE FROM alembic_version"))
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert "run `alembic upgrade head`" in response.json()["detail"]


async def test_ready_and_logged_while_the_schema_is_newer(
    client: AsyncClient, connection: AsyncConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """A newer deployment has migrated, and this process serves until it is replaced."""
    await connection.execute(text("DELETE FROM alembic_version"))
    await connection.execute(text("INSERT INTO alembic_version VALUES ('pytest_newer')"))
    response = await client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {"status": "ready", "schema_state": "newer"}
    assert "pytest_newer" in caplog.text
