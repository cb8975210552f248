"""What happens on SIGTERM, and how garbage collection is tuned."""

import asyncio
import gc
import signal
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from httpx import AsyncClient


@pytest.fixture
def interrupted() -> Iterator[asyncio.Event]:
    """An event that SIGINT sets. uvicorn exits on SIGINT."""
    event = asyncio.Event()
    previous = signal.signal(signal.SIGINT, lambda number, frame: event.set())
    yield event
    signal.signal(signal.SIGINT, previous)


def send_sigterm() -> None:
    """Send SIGTERM to this process, unless it would end the tests."""
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    assert signal.getsignal(signal.SIGTERM) not in defaults, "the application handles no SIGTERM"
    signal.raise_signal(signal.SIGTERM)


async def next_callbacks() -> None:
    """Let the event loop run what a signal has scheduled."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_sigterm_is_announced_and_requests_are_still_served(
    served_app: FastAPI, served_client: AsyncClient, interrupted: asyncio.Event
) -> None:
    shutdown = served_app.state.shutdown
    shutdown.delay = 60
    response = await served_client.get("/health/ready")
    assert response.status_code == 200
    assert "connection" not in response.headers
    send_sigterm()
    await next_callbacks()
    response = await served_client.get("/health/ready")
    assert response.status_code == 503
    assert response.json()["detail"] == "This process shuts down."
    response = await served_client.get("/docs")
    assert (response.status_code, response.headers["connection"]) == (200, "close")
    assert shutdown.timer.when() > asyncio.get_running_loop().time() + 50
    assert not interrupted.is_set()


async def test_second_sigterm_skips_the_delay_and_a_third_does_nothing(
    served_app: FastAPI, interrupted: asyncio.Event
) -> None:
    shutdown = served_app.state.shutdown
    shutdown.delay = 60
    send_sigterm()
    await next_callbacks()
    first = shutdown.timer
    send_sigterm()
    await asyncio.wait_for(interrupted.wait(), 5)
    assert first.cancelled()
    interrupted.clear()
    send_sigterm()
    await asyncio.sleep(0.05)  # for an event that must not come
    assert not interrupted.is_set()  # uvicorn would break off the requests in flight


async def test_process_ends_after_the_delay(
    served_app: FastAPI, interrupted: asyncio.Event
) -> None:
    served_app.state.shutdown.delay = 0.01
    send_sigterm()
    await asyncio.wait_for(interrupted.wait(), 5)


async def test_without_a_delay_the_server_handles_sigterm(app: FastAPI) -> None:
    """A reload sends it after Ctrl-C, and a second SIGINT would break off the clean-up."""
    before = signal.getsignal(signal.SIGTERM)
    app.state.shutdown.delay = 0
    async with app.router.lifespan_context(app):
        assert signal.getsignal(signal.SIGTERM) == before


async def test_lifespan_restores_the_handler_of_sigterm(app: FastAPI) -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with app.router.lifespan_context(app):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


async def test_end_of_the_lifespan_cancels_the_shutdown(
    app: FastAPI, interrupted: asyncio.Event
) -> None:
    """An application that is served again, as in a test, starts afresh."""
    shutdown = app.state.shutdown
    async with app.router.lifespan_context(app):
        send_sigterm()
        await next_callbacks()
        assert shutdown.begun
    assert shutdown.timer.cancelled()
    assert not shutdown.begun


async def test_garbage_collection_is_rare_and_skips_imports(app: FastAPI) -> None:
    async with app.router.lifespan_context(app):
        pass
    assert gc.get_threshold()[0] == 10_000
    assert gc.get_freeze_count() > 10_000
