"""`python -m app.jobs`: failed jobs are listed and enqueued again."""

import pytest

from app.config import Settings
from app.database import Database
from app.jobs import __main__ as commands

from . import sample
from .conftest import put, rows, work_off
from .sample import SEEN, Note


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "get_settings", lambda: settings)


async def test_failed_jobs_are_listed_and_requeued(
    settings: Settings, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    first = await put(database, sample.store_and_fail, Note(name="a"))
    second = await put(database, sample.store_and_fail, Note(name="b"))
    await work_off(settings, database)
    assert await commands.run("failed", []) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [(job_id, name, reason) for job_id, _, _, name, reason in map(str.split, lines)]
    name = sample.store_and_fail.name
    assert shown == [(str(first), name, "ValueError"), (str(second), name, "ValueError")]

    assert await commands.run("requeue", [second]) == 0  # type: ignore[list-item] # not None
    assert await rows(database) == [
        (sample.store_and_fail.name, "failed", 2),
        (sample.store_and_fail.name, "queued", 0),
    ]
    assert await commands.run("requeue", []) == 0
    assert {status for _, status, _ in await rows(database)} == {"queued"}
    SEEN.clear()
    await work_off(settings, database)
    assert sorted(SEEN) == ["a"] * 3 + ["b"] * 3


async def test_unknown_id_is_one_line(database: Database) -> None:
    assert await commands.run("requeue", [7, 5]) == "requeue: not a failed job: 5, 7"


async def test_key_that_is_taken_keeps_its_job_failed(
    settings: Settings, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = await put(database, sample.store_and_fail, Note(name="a"), key="1")
    await work_off(settings, database)
    await put(database, sample.store_and_fail, Note(name="b"), key="1")
    await commands.run("requeue", [])
    assert capsys.readouterr().err == f"{job_id}: another job with its key waits\n"
    assert [status for _, status, _ in await rows(database)] == ["failed", "queued"]
