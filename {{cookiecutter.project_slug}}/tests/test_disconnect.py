"""A client that leaves while its request is worked on."""

import asyncio

import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from sqlalchemy import func, select, text
from starlette.types import Message, Scope

from app import disconnect
from app.dependencies import ReadSession, Session

LEFT: Message = {"type": "http.disconnect"}


class Client:
    """Sends a request to an application as a server would, and can leave."""

    def __init__(self, app: FastAPI, method: str, path: str, *parts: bytes) -> None:
        self.app, self.left, self.answers = app, asyncio.Event(), list[Message]()
        headers = [(b"transfer-encoding", b"chunked")] if parts else []
        self.scope: Scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": headers,
        }
        self.messages: list[Message] = [
            {"type": "http.request", "body": part, "more_body": bool(parts[number:])}
            for number, part in enumerate(parts or (b"",), start=1)
        ]

    async def receive(self) -> Message:
        if self.messages:
            return self.messages.pop(0)
        await self.left.wait()
        return LEFT

    async def send(self, message: Message) -> None:
        self.answers.append(message)

    async def request(self) -> list[Message]:
        await asyncio.wait_for(self.app(self.scope, self.receive, self.send), 10)
        return self.answers


@pytest.fixture
def started() -> asyncio.Event:
    """Set when a route has begun."""
    return asyncio.Event()


@pytest.fixture(autouse=True)
def routes(app: FastAPI, started: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes that wait, after a write or after their answer."""
    monkeypatch.setattr(disconnect, "PATIENCE", 0.01)

    @app.post("/write")
    async def write(session: Session) -> None:
        await session.execute(text("CREATE TABLE written ()"))
        started.set()
        await asyncio.Event().wait()

    @app.get("/written")
    async def written(session: ReadSession) -> str | None:
        return await session.scalar(select(func.to_regclass("written")))

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(asyncio.sleep, 0.05)
        tasks.add_task(started.set)

    @app.post("/echo")
    async def echo(request: Request) -> str:
        await asyncio.sleep(0.05)
        return (await request.body()).decode()


async def test_what_a_client_that_left_asked_for_is_rolled_back(
    app: FastAPI, started: asyncio.Event
) -> None:
    client = Client(app, "POST", "/write")
    request = asyncio.create_task(client.request())
    await started.wait()
    client.left.set()
    assert await request == []
    assert (await Client(app, "GET", "/written").request())[-1]["body"] == b"null"


async def test_what_follows_the_answer_is_done_though_the_client_left(
    app: FastAPI, started: asyncio.Event
) -> None:
    client = Client(app, "GET", "/later")
    client.left.set()
    assert (await client.request())[0]["status"] == 200
    assert started.is_set()


@pytest.mark.parametrize("parts", [(), (b"one",), (b"one", b"two", b"three")])
async def test_a_body_that_is_read_late_is_whole(app: FastAPI, parts: tuple[bytes, ...]) -> None:
    answers = await Client(app, "POST", "/echo", *parts).request()
    assert answers[-1]["body"] == b'"%s"' % b"".join(parts)


async def test_a_server_that_never_waits_is_not_asked_for_ever(app: FastAPI) -> None:
    client = Client(app, "POST", "/echo")
    client.messages *= 10
    assert (await client.request())[0]["status"] == 200
    assert len(client.messages) == 8  # the watch has had two
