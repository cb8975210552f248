"""Mails in tests, as jobs send them."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from httpx import ASGITransport, Request, Response
from job_fixtures import run_queued

from app.auth import tasks


@pytest.fixture(autouse=True)
def mails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the jobs of mails before a client gets its 202, with the mailer of its application."""
    handle, turn = ASGITransport.handle_async_request, asyncio.Lock()

    async def answer(transport: Any, request: Request) -> Response:
        response = await handle(transport, request)
        if response.status_code == 202:
            state = transport.app.state
            async with turn:
                monkeypatch.setattr(tasks, "mailer", lambda: state.auth["mailer"])
                with suppress(tasks.NotSent):
                    await run_queued(state.database, tasks.send.name)
        return response

    monkeypatch.setattr(ASGITransport, "handle_async_request", answer)
