"""Attacks on a served project by raw connections, and what they cost it."""

import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from serving import Server

MiB = 2**20
HEAD = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST /items HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
HUGE = b"content-length: 3000000000\r\n\r\n"
LINE = b"name: " + b"x" * 1000 + b"\r\n"

# What a connection sends first, and then over and over.
FLOODS = {
    "header lines": (HEAD, LINE),
    "one header": (HEAD + b"name: ", b"x" * 1000),
    "a header's name": (HEAD, b"x" * 1000),
    "URL": (b"GET /", b"x" * 1000),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", LINE),
    "extension of a chunk": (CHUNKED + b"2;", b"x" * 1000),
    "small chunks": (CHUNKED, b"1\r\n[\r\n" * 200),
    "header lines of a WebSocket": (HEAD + b"connection: upgrade\r\nupgrade: websocket\r\n", LINE),
    "body of a route": (POST + HUGE, b"x" * 65536),
    "body of an unknown path": (HEAD.replace(b"/live", b"/x") + HUGE, b"x" * 65536),
    "body of a GET": (HEAD + HUGE, b"x" * 65536),
}


@dataclass
class Report:
    """What an attack did. Memory is in MiB, times in seconds."""

    tried: int
    refused: int
    served: int  # requests of others meanwhile
    failed: int  # of those
    slowest: float
    memory: float
    grown: float

    def __str__(self) -> str:
        return (
            f"tried {self.tried}, refused {self.refused}; beside it served {self.served}, "
            f"failed {self.failed}, slowest {self.slowest:.2f} s; "
            f"memory {self.memory:.0f} MiB, {self.grown:+.0f}"
        )


def memory_of(server: Server) -> float:
    return float(server.process.memory_info().rss / MiB)


def attack(server: Server, tries: int, one: Callable[[], bool]) -> Report:
    """Run `one` in `tries` threads while another client sends requests. It tells if refused."""
    before, refused, threads = memory_of(server), [], []
    done = threading.Event()
    peak, times, failed = before, [], 0
    for _ in range(tries):
        thread = threading.Thread(target=lambda: refused.append(one()))
        thread.start()
        threads.append(thread)
    while not done.is_set():
        start = time.monotonic()
        failed += not answers(server)
        times.append(time.monotonic() - start)
        peak = max(peak, memory_of(server))
        if not any(thread.is_alive() for thread in threads):
            done.set()
        time.sleep(0.01)
    return Report(tries, sum(refused), len(times), failed, max(times), before, peak - before)


def answers(server: Server) -> bool:
    try:
        url = f"{server.url}/health/live"
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - loopback
            return bool(response.status == 200)
    except OSError:
        return False


def connect(server: Server, receive_buffer: int = 0) -> socket.socket:
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", server.port))
    return connection


def flood(server: Server, kind: str, size: int) -> bool:
    """Send `size` bytes. Tell whether the server closed the connection before their end."""
    first, more = FLOODS[kind]
    with connect(server) as connection:
        try:
            connection.sendall(first)
            for _ in range(size // len(more)):
                connection.sendall(more)
        except OSError:
            return True
    return False


def answer_of(server: Server, request: bytes, seconds: float = 30) -> bytes:
    """Send a request and return all that comes back until the connection ends."""
    with connect(server) as connection:
        connection.settimeout(seconds)
        connection.sendall(request)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the connection ends."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def idle_connections(server: Server, count: int, request: bytes = b"") -> Iterator[None]:
    """Hold connections that have sent a part of a request."""
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(connect(server))
            connection.sendall(request)
        yield


def post(name: str, *headers: bytes) -> bytes:
    body = json.dumps({"name": name}).encode()
    lines = [*headers, b"content-length: %d" % len(body), b"connection: close"]
    return POST + b"\r\n".join(lines) + b"\r\n\r\n" + body
