"""Readiness where the schema's revision is missing, unreadable or slow to come."""

import asyncio
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.database import revisions
from app.web import health


async def test_probes_are_documented_and_live_answers(app: FastAPI, client: AsyncClient) -> None:
    paths = app.openapi()["paths"]
    assert "503" not in paths["/health/live"]["get"]["responses"]
    assert "503" in paths["/health/ready"]["get"]["responses"]
    response = await client.get("/health/live")
    assert (response.status_code, response.json()) == (200, {"status": "live"})


@pytest.mark.parametrize("sql", ["DELETE FROM alembic_version", "DROP TABLE alembic_version"])
async def test_not_ready_before_the_first_revision(
    client: AsyncClient, connection: AsyncConnection, sql: str
) -> None:
    await connection.execute(text(sql))
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert "alembic upgrade head" in response.json()["detail"]


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE alembic_version RENAME version_num TO other",
        "CREATE ROLE pytest_stranger; GRANT USAGE ON SCHEMA public TO pytest_stranger;"
        "SET LOCAL ROLE pytest_stranger",
    ],
    ids=["other column", "other role"],
)
async def test_not_ready_where_the_revision_cannot_be_read(
    client: AsyncClient,
    connection: AsyncConnection,
    caplog: pytest.LogCaptureFixture,
    sql: str,
) -> None:
    for statement in sql.split(";"):
        await connection.execute(text(statement))
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["detail"] == "The table alembic_version cannot be read."
    assert "The table alembic_version cannot be read: " in caplog.text


async def test_not_ready_while_the_database_does_not_answer(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(session: AsyncSession) -> set[str]:
        await asyncio.Event().wait()
        return set()

    monkeypatch.setattr(health, "applied_revisions", hang)
    monkeypatch.setattr(health, "TIMEOUT", 0.01)
    response = await asyncio.wait_for(client.get("/health/ready"), 5)
    assert response.status_code == 503
    assert response.json()["detail"] == "The database did not answer in 0.01 seconds."
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize(("revision", "status"), [("first", 503), ("second", 200), ("third", 200)])
async def test_ready_at_the_newest_of_several_revisions_or_above(
    client: AsyncClient,
    connection: AsyncConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    revision: str,
    status: int,
) -> None:
    """This code knows `first` and `second`."""
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "first.py").write_text("revision = 'first'\ndown_revision = None\n")
    (versions / "second.py").write_text("revision = 'second'\ndown_revision = 'first'\n")
    monkeypatch.setattr(revisions, "script_directory", lambda: ScriptDirectory(str(tmp_path)))
    await connection.execute(text("DELETE FROM alembic_version"))
    await connection.execute(text("INSERT INTO alembic_version VALUES (:r)"), {"r": revision})
    response = await client.get("/health/ready")
    assert response.status_code == status
    state = {"first": None, "second": "current", "third": "newer"}[revision]
    assert response.json().get("schema_state") == state


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_probe_may_be_a_head_request(client: AsyncClient, path: str) -> None:
    response = await client.head(path)
    assert (response.status_code, response.content) == (200, b"")
