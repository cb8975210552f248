"""The user of a request: round trips, connections, WebSockets."""

import asyncio
from datetime import timedelta

import pytest
from fastapi import FastAPI, WebSocket
from httpx import AsyncClient
from machinery.test_sessions import proxied
from machinery.test_websockets import connect
from sqlalchemy import URL, func, select, update

from accounts.conftest import EMAIL, Serve, database_of, sign_in
from app.auth.dependencies import CurrentUser
from app.dependencies import Session
from app.models.account import Token

pytestmark = pytest.mark.usefixtures("account")


async def age(app: FastAPI) -> None:
    """Make the last use of every token two minutes old."""
    async with database_of(app).sessions.begin() as session:
        last = func.now() - timedelta(minutes=2)
        await session.execute(update(Token).values(last_used_at=last))


async def test_user_is_one_round_trip(
    served_app: FastAPI, served_client: AsyncClient, fresh_url: URL, serve: Serve
) -> None:
    """Once a minute a short transaction stores the use of the token."""
    token = await sign_in(served_client)
    trips = []
    async with (
        proxied(fresh_url) as (url, messages),
        serve(url) as client,
    ):
        client.headers["authorization"] = f"Bearer {token}"
        for number in range(5):
            if number == 3:
                await age(served_app)
            before = messages[b"Z"]
            assert (await client.get("/auth/me")).status_code == 200
            trips.append(messages[b"Z"] - before)
    assert [trips[1], trips[2], trips[4]] == [1, 1, 1]
    assert trips[3] > 1


async def test_use_is_stored_once_a_minute(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    await sign_in(served_client)
    await age(served_app)
    uses = set()
    for _ in range(2):
        await served_client.get("/auth/me")
        uses.add((await served_client.get("/auth/sessions")).json()[0]["last_used_at"])
    (use,) = uses
    async with database_of(served_app).sessions() as session:
        recent = select(Token.last_used_at > func.now() - timedelta(minutes=1))
        assert await session.scalar(recent), use


async def test_request_takes_one_connection_at_a_time(
    served_app: FastAPI, served_client: AsyncClient
) -> None:
    """60 requests that read the user, store the use of the token and write, on a pool of 15."""

    @served_app.post("/pytest")
    async def write(user: CurrentUser, session: Session) -> None:
        await session.scalar(select(func.pg_sleep(0.01)))

    await sign_in(served_client)
    await age(served_app)
    answers = await asyncio.gather(*(served_client.post("/pytest") for _ in range(60)))
    assert {answer.status_code for answer in answers} == {200}


async def test_websocket_reads_the_user(served_app: FastAPI, served_client: AsyncClient) -> None:
    @served_app.websocket("/pytest")
    async def socket(websocket: WebSocket, user: CurrentUser) -> None:
        await websocket.accept()
        await websocket.send_text(user.email)

    token = await sign_in(served_client)
    header = {"authorization": f"Bearer {token}"}
    accepted, text, *_ = await connect(served_app, "/pytest", **header)
    assert (accepted["type"], text["text"]) == ("websocket.accept", EMAIL)
    refused, *_ = await connect(served_app, "/pytest")
    assert refused["status"] == 401
