"""The fixtures of the project that run a real server in the process of the tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from conftest import serve, settings_for
from fastapi import WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import URL
from websockets.sync.client import connect

from app.main import create_app


@pytest.fixture
def url(fresh_url: URL) -> Iterator[str]:
    """A server with two routes that do not end."""
    app = create_app(settings_for(fresh_url))
    app.add_api_route("/events", stream_events)
    app.add_api_websocket_route("/socket", greet)
    with serve(app) as url:
        yield url


async def stream_events() -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        yield "data: first\n\n"
        await asyncio.Event().wait()

    return StreamingResponse(events(), media_type="text/event-stream")


async def greet(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(f"hello {await socket.receive_text()}")
    await asyncio.Event().wait()


def test_live_server_commits(live_server: str) -> None:
    with httpx.Client(base_url=live_server) as client:
        assert client.get("/health/ready").json()["status"] == "ready"
        assert client.post("/items", json={"name": "kept"}).status_code == 201
        assert [item["name"] for item in client.get("/items").json()["items"]] == ["kept"]


def test_stream_arrives_before_it_ends(url: str) -> None:
    with httpx.stream("GET", f"{url}/events") as response:
        lines = response.iter_lines()
        assert next(lines) == "data: first"


def test_server_ends_while_a_stream_is_open(fresh_url: URL) -> None:
    app = create_app(settings_for(fresh_url))
    app.add_api_route("/events", stream_events)
    with httpx.Client() as client:
        with serve(app) as url:
            response = client.send(client.build_request("GET", f"{url}/events"), stream=True)
            lines = response.iter_lines()
            assert next(lines) == "data: first"
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)


def test_websocket_answers(url: str) -> None:
    with connect(f"{url.replace('http', 'ws', 1)}/socket") as socket:
        socket.send("you")
        assert socket.recv() == "hello you"
