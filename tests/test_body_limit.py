"""A request body that is too large, sent to a real server."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader

import pytest
from conftest import Project
from serving import serve

pytestmark = pytest.mark.slow

LIMIT = 1_000_000
HEAD = "POST /items HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module", params=["httptools", "h11"])
def address(request: pytest.FixtureRequest, installed: Project) -> Iterator[tuple[str, int]]:
    with serve(installed.path, f"--http={request.param}") as server:
        yield "127.0.0.1", server.port


@dataclass(frozen=True)
class Client:
    """A connection on which a test writes its requests itself."""

    socket: socket.socket
    file: BufferedReader

    def send(self, head: str, body: bytes = b"") -> None:
        self.socket.sendall(head.encode() + body)

    def receive(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        lines = iter(self.file.readline, b"\r\n")
        headers = dict(line.decode().strip().lower().split(": ", 1) for line in lines)
        return status, headers, self.file.read(int(headers["content-length"]))


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[Client]:
    with (
        socket.create_connection(address, timeout=10) as connection,
        connection.makefile("rb") as file,
    ):
        yield Client(connection, file)


def assert_refused(client: Client, media_type: str = "text/plain") -> None:
    """FastAPI itself refuses a declared length. Later it is an error of reading the body."""
    status, headers, _ = client.receive()
    assert status == 413
    assert headers["content-type"].startswith(media_type)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-request-id"]


def test_declared_length_is_refused_without_waiting_for_the_body(client: Client) -> None:
    client.send(f"{HEAD}Content-Length: {LIMIT + 1}\r\n\r\n")
    assert_refused(client)


def test_client_that_expects_100_continue_sends_no_body(client: Client) -> None:
    client.send(f"{HEAD}Content-Length: {LIMIT + 1}\r\nExpect: 100-continue\r\n\r\n")
    assert_refused(client)


def test_connection_is_usable_after_the_whole_body(client: Client) -> None:
    client.send(f"{HEAD}Content-Length: {5 * LIMIT}\r\n\r\n", b"x" * 5 * LIMIT)
    assert_refused(client)
    client.send(GET)
    assert client.receive()[0] == 200


def test_chunked_body_is_refused_once_it_is_too_large(client: Client) -> None:
    client.send(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(11):
        client.send("186a0\r\n", b"x" * 100_000 + b"\r\n")
    assert_refused(client, "application/problem+json")
    client.send("0\r\n\r\n" + GET)
    assert client.receive()[0] == 200
