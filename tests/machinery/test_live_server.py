"""The fixtures of the project that run a real server in the process of the tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import conftest
import httpx
import pytest
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from websockets.sync.client import connect

from app.config import Settings
from app.main import create_app


@pytest.fixture
def two_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application of `live_server` has two routes that do not end."""

    def create(settings: Settings) -> FastAPI:
        app = create_app(settings)
        app.add_api_route("/events", stream_events)
        app.add_api_websocket_route("/socket", greet)
        return app

    monkeypatch.setattr(conftest, "create_app", create)


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


@pytest.fixture
def http() -> Iterator[tuple[httpx.Client, list[Iterator[str]]]]:
    """A client, and streams that it has open until `live_server` has stopped."""
    streams: list[Iterator[str]] = []
    with httpx.Client() as client:
        yield client, streams


@pytest.mark.usefixtures("two_routes")
def test_stream_arrives_and_the_server_stops_before_it_ends(
    http: tuple[httpx.Client, list[Iterator[str]]], live_server: str
) -> None:
    client, streams = http
    request = client.build_request("GET", f"{live_server}/events")
    streams.append(client.send(request, stream=True).iter_lines())
    assert next(streams[0]) == "data: first"


@pytest.mark.usefixtures("two_routes")
def test_websocket_answers(live_server: str) -> None:
    with connect(f"{live_server.replace('http', 'ws', 1)}/socket") as socket:
        socket.send("you")
        assert socket.recv() == "hello you"
