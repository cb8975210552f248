"""Mails of accounts as jobs."""

import json
import logging
from collections import deque
from datetime import timedelta
from email.message import EmailMessage

import pytest
from conftest import client_of, settings_for
from fastapi import FastAPI
from httpx import AsyncClient
from job_fixtures import run_queued
from sqlalchemy import URL, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth import tasks
from app.auth.mail import Mailer
from app.jobs.queue import SCHEDULES, enqueue
from app.jobs.worker import fail
from app.main import create_app, lifespan
from app.models.account import Account, Token

NEW = {"email": "ann@example.com", "password": "correct horse battery"}
WAITING = text("SELECT entrypoint, priority, convert_from(payload, 'utf-8') FROM jobs.pgqueuer")
PATHS = ["register", "password/forgot", "verify/resend"]


@pytest.fixture
def no_jobs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_none(*_: object) -> None:
        pass

    monkeypatch.setattr("mail_fixtures.run_queued", run_none)


@pytest.mark.usefixtures("no_jobs_run")
@pytest.mark.parametrize("path", PATHS)
async def test_request_enqueues_a_mail_without_a_token(
    client: AsyncClient, connection: AsyncConnection, mails: deque[EmailMessage], path: str
) -> None:
    """And the same for an address that is not known."""
    response = await client.post(f"/auth/{path}", json=NEW)
    assert response.status_code == 202
    [(name, priority, payload)] = (await connection.execute(WAITING)).all()
    kind = {"password/forgot": "reset"}.get(path, "verify")
    assert (name, priority) == ("auth.send", 1)
    assert json.loads(payload) == {"name": kind, "email": NEW["email"]}
    assert await connection.scalar(select(func.count(Token.id))) == 0
    assert not mails


@pytest.mark.usefixtures("no_jobs_run")
async def test_mail_that_is_not_sent_is_repeated_and_logs_no_secret(
    fresh_url: URL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings_for(fresh_url, mail_url="smtp+plain://127.0.0.1:1"))
    mailer: Mailer = app.state.auth["mailer"]
    monkeypatch.setattr(tasks, "mailer", lambda: mailer)
    async with lifespan(app), client_of(app) as client:
        await client.post("/auth/register", json=NEW)
        for _ in range(2):
            with pytest.raises(tasks.NotSent) as error:
                await run_queued(app.state.database)
        mailer.url = mailer.url.set(drivername="console")
        assert await run_queued(app.state.database) == ["auth.send"]
    with caplog.at_level(logging.ERROR), pytest.raises(Exception, match="NotSent"):
        fail(tasks.send, 1, error.value)
    assert len(mailer.sent) == 1
    assert NEW["email"] not in caplog.text


async def test_schedule_deletes_expired_rows(
    app: FastAPI, client: AsyncClient, connection: AsyncConnection
) -> None:
    await client.post("/auth/register", json=NEW)
    await connection.execute(update(Token).values(expires_at=func.now() - timedelta(days=1)))
    [(job, payload)] = [(job, given) for _, job, given in SCHEDULES if job is tasks.delete_expired]
    async with app.state.database.sessions.begin() as session:
        await enqueue(session, job, payload)
    assert await run_queued(app.state.database) == ["auth.delete_expired"]
    assert await connection.scalar(select(func.count(Token.id))) == 0


@pytest.mark.usefixtures("no_jobs_run")
async def test_account_registered_again_is_not_deleted_before_its_mail(
    app: FastAPI, client: AsyncClient, connection: AsyncConnection, mails: deque[EmailMessage]
) -> None:
    """However late the job of the mail runs."""
    old = {"email": NEW["email"], "created_at": func.now() - timedelta(days=8)}
    await connection.execute(insert(Account).values(old))
    await client.post("/auth/register", json=NEW)
    async with app.state.database.sessions.begin() as session:
        await enqueue(session, tasks.delete_expired, tasks.Nothing())
    await run_queued(app.state.database, tasks.delete_expired.name)
    assert await run_queued(app.state.database, tasks.send.name) == [tasks.send.name]
    assert [mail["To"] for mail in mails] == [NEW["email"]]
