"""Attacks on a generated project by raw connections, served by its own commands."""

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
import readmes
from attacks import (
    FLOODS,
    HEAD,
    POST,
    answer_of,
    answers,
    attack,
    connect,
    flood,
    idle_connections,
    post,
    received,
)
from conftest import Project, short_directory
from servers import free_port
from serving import Server, serve, wait_until

pytestmark = pytest.mark.slow

COMMAND = ("python", "-m", "app", "--port=PORT")  # of docs/deploy.md and of the Dockerfile
SIZE = 40_000_000  # more than what is discarded, and the buffers between


@pytest.fixture(scope="module")
def server(installed: Project) -> Iterator[Server]:
    """The application without a database, served by the command for production."""
    with serve(installed.path, command=COMMAND) as server:
        yield server


def test_image_runs_the_same_command(baked: Project) -> None:
    dockerfile = (baked.path / "Dockerfile").read_text()
    assert '"python", "-m", "app", "--host", "0.0.0.0"' in dockerfile


@pytest.mark.parametrize("kind", FLOODS)
def test_flood_is_refused_and_others_are_served(server: Server, kind: str) -> None:
    report = attack(server, 2, lambda: flood(server, kind, SIZE))
    assert report.refused == report.tried, report
    assert not report.failed, report
    assert report.grown < 20, report


def test_request_with_large_headers_passes(server: Server) -> None:
    head = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    answer = answer_of(server, head + b"name: " + b"x" * 40_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    pipelined = head.replace(b"connection: close\r\n", b"") + b"\r\n"
    answer = answer_of(server, pipelined * 90 + head + b"\r\n")
    assert answer.count(b"HTTP/1.1 200 ") == 91


def test_request_that_does_not_come_ends(server: Server) -> None:
    """Each of these connections sends no more after its first bytes."""
    part = POST + b"content-length: 100\r\n\r\n{"
    expected = {b"": b"408", b"GET / HTTP/1.1\r\nhost: lo": b"408", part: b"408"}
    sockets = {}
    for sent in expected:
        sockets[sent] = connect(server)
        sockets[sent].sendall(sent)
    for sent, connection in sockets.items():
        with connection:
            answer = received(connection)
        assert answer.startswith(b"HTTP/1.1 408 "), sent
        assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_offer_of_another_protocol_loses_no_body(
    server: Server, method: str, protocol: bytes
) -> None:
    offer = b"connection: close, upgrade\r\nupgrade: " + protocol
    answer = answer_of(server, post("pen", offer).replace(b"POST", method.encode(), 1))
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_offer_of_another_protocol_without_a_body_is_ignored(server: Server) -> None:
    offer = b"connection: upgrade\r\nupgrade: h2c\r\nhost: localhost\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\n" + offer)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_unfinished_body_does_not_delay_the_end(installed: Project) -> None:
    part = POST + b"content-length: 100\r\n\r\n{"
    with serve(installed.path, command=COMMAND) as server, idle_connections(server, 5, part):
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 9  # of the 10 for a body


def test_connections_over_the_limit_are_503(installed: Project) -> None:
    command = (*COMMAND, "--limit-concurrency=20")
    with serve(installed.path, command=command) as server:
        assert answers(server)
        with idle_connections(server, 20):
            answer = answer_of(server, b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 503 ")
        wait_until(lambda: answers(server))


FEW_FILES = """
import resource, runpy, sys

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
sys.argv = ["app", "--port=PORT"]
runpy.run_module("app", run_name="__main__")
"""


def test_lack_of_file_descriptors_is_logged(installed: Project) -> None:
    with serve(installed.path, command=("python", "-c", FEW_FILES)) as server:
        with idle_connections(server, 80):
            wait_until(lambda: "Too many open files" in server.log.read_text())
        wait_until(lambda: answers(server))
    assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="module")
def proxy(server: Server) -> Iterator[Server]:
    """nginx with the configuration of docs/deploy.md in front of `server`."""
    if not (nginx := shutil.which("nginx", path="/usr/sbin:/usr/bin")):
        pytest.skip("needs Debian's package nginx")
    port, directory = free_port(), short_directory()
    (text,) = readmes.fenced(readmes.read(readmes.DEPLOY), "nginx")
    text = text.replace("listen 80;", f"listen 127.0.0.1:{port};").replace(
        "127.0.0.1:8000", f"127.0.0.1:{server.port}"
    )
    places = "".join(
        f"{name}_temp_path {directory}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    http = f"access_log off; {places}\n{text}"
    config = directory / "nginx.conf"
    config.write_text(f"pid {directory}/pid; events {{}} http {{ {http} }}")
    log = directory / "log"
    with log.open("wb") as output:
        command = [nginx, "-e", "stderr", "-g", "daemon off;", "-c", str(config)]
        process = psutil.Popen(command, stderr=output)
    front = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until(lambda: answers(front), log.read_text)
        yield front
    finally:
        front.stop()


def test_nginx_passes_requests(proxy: Server, server: Server) -> None:
    request = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    request += b"x-request-id: through-nginx\r\n\r\n"
    answers: list[bytes] = []

    def is_below_the_rate() -> bool:  # which another test may have used up
        answers.append(answer_of(proxy, request))
        return b" 429 " not in answers[-1][:20]

    wait_until(is_below_the_rate)
    answer = answers[-1]
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"x-request-id: through-nginx" in answer


def test_nginx_limits_headers_bodies_and_rate(proxy: Server) -> None:
    large = answer_of(proxy, b"GET / HTTP/1.1\r\nhost: a\r\nb: " + b"x" * 9000 + b"\r\n\r\n")
    assert large.startswith(b"HTTP/1.1 400 ")
    url = answer_of(proxy, b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert url.startswith(b"HTTP/1.1 414 ")
    body = answer_of(proxy, POST + b"content-length: 3000000\r\n\r\n")
    assert body.startswith(b"HTTP/1.1 413 ")
    request = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    statuses = {answer_of(proxy, request)[9:12] for _ in range(100)}
    assert statuses == {b"200", b"429"}


REFUSED_HANDSHAKES = {
    "many headers": b"a: b\r\n" * 200,
    "a large header": b"a: " + b"x" * 9000 + b"\r\n",
}
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize("kind", REFUSED_HANDSHAKES)
def test_refused_handshake_of_a_websocket_is_answered_and_closed(
    server: Server, kind: str
) -> None:
    answer = answer_of(server, UPGRADE + REFUSED_HANDSHAKES[kind] + b"\r\n", seconds=5)
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_pipeline_is_bounded(server: Server) -> None:
    request = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nhost: localhost\r\n\r\n"

    def refused() -> bool:
        try:
            return b"HTTP/1.1 400 " in answer_of(server, request * 2000)
        except ConnectionError:  # with requests that nobody has read
            return True

    report = attack(server, 5, refused)
    assert report.refused == report.tried, report
    assert report.grown < 50, report


def test_client_that_reads_nothing_is_dropped(server: Server) -> None:
    request = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with connect(server, receive_buffer=2048) as connection:
        connection.sendall(request * 4)
        wait_until(lambda: connections_of(server) == 1)
        wait_until(lambda: connections_of(server) == 0)  # the kernel counts 30 s


def connections_of(server: Server) -> int:
    found = server.process.net_connections(kind="tcp")
    return len([each for each in found if each.status != "LISTEN"])


def test_body_that_trickles_is_408(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(POST + b"content-length: 1000\r\n\r\n")
        connection.settimeout(1)
        answer = b""
        start = time.monotonic()
        while not answer and time.monotonic() - start < 20:
            connection.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - start < 15


def test_trailer_is_no_header(server: Server) -> None:
    head = b"POST /items HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n"
    head += b"connection: close\r\n"
    kind, body = b"content-type: application/json\r\n", b"\r\n2\r\n{}\r\n0\r\n"
    assert b"body.name" in answer_of(server, head + kind + body + b"\r\n")
    assert b"body.name" not in answer_of(server, head + body + kind + b"\r\n")


def test_unfinished_heads_are_limited(installed: Project) -> None:
    """uvicorn's limit counts the connections whose head is complete."""
    command = (*COMMAND, "--limit-concurrency=20")
    with (
        serve(installed.path, command=command) as server,
        idle_connections(server, 60, b"GET / HTTP/1.1\r\nname: x"),
    ):
        wait_until(lambda: 0 < connections_of(server) <= 25, seconds=8)


def test_connection_ends_whose_body_comes_after_the_response(server: Server) -> None:
    with connect(server) as connection:
        head = HEAD.replace(b"/live", b"/unknown").replace(b"GET", b"POST")
        connection.sendall(head + b"content-length: 1000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"{")
        assert b"HTTP/1.1 408 " in received(connection)


STREAM = """
from collections.abc import Iterator
from fastapi import WebSocket
from fastapi.responses import StreamingResponse
from app.main import app

@app.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())

@app.get("/stream")
async def stream() -> StreamingResponse:
    def parts() -> Iterator[bytes]:
        for _ in range(60):
            yield b"x" * 65536

    return StreamingResponse(parts())
"""


@pytest.mark.long
def test_slow_download_is_whole_and_an_idle_websocket_lives(copied: Project) -> None:
    """The client of the download reads less in 10 seconds than waits in buffers."""
    (copied.path / "stream.py").write_text(STREAM)
    command = ("uvicorn", "stream:app", "--port=PORT", "--http=app.web.server:Protocol")
    env = {"DATABASE_URL": "", "DATABASE_URL_SYNC": ""}  # those of .env
    request = b"GET /stream HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    with serve(copied.path, command=command, env=env) as server, connect(server) as websocket:
        websocket.sendall(UPGRADE + b"\r\n")
        assert websocket.recv(65536).startswith(b"HTTP/1.1 101 ")
        with connect(server, receive_buffer=32768) as connection:
            connection.sendall(request)
            size, start = 0, time.monotonic()
            while part := connection.recv(16384):
                size += len(part)
                behind = size / 200_000 - (time.monotonic() - start)
                threading.Event().wait(max(behind, 0))  # 200 kB/s
        assert size > 60 * 65536
        websocket.sendall(b"\x81\x82\0\0\0\0hi")
        assert b"\x81\x02hi" in received(websocket)


def test_pipelined_requests_that_are_refused_leave_no_traceback(installed: Project) -> None:
    with serve(installed.path, command=COMMAND) as server:
        for _ in range(5):
            with contextlib.suppress(ConnectionError):
                answer_of(server, (HEAD + b"\r\n") * 300)
        assert answers(server)
    assert "Traceback" not in server.log.read_text()


def test_handshake_does_not_overtake_a_response(server: Server) -> None:
    """The response would become part of the WebSocket."""
    answer = answer_of(server, HEAD + b"\r\n" + UPGRADE + b"\r\n", seconds=5)
    assert b"HTTP/1.1 101 " not in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400 ")


ECHO = f"""
import runpy, sys
{STREAM}
sys.argv = ["app", "--port=PORT"]
runpy.run_module("app", run_name="__main__")
"""


def test_messages_of_a_websocket_are_bounded_and_not_compressed(copied: Project) -> None:
    env = {"DATABASE_URL": "", "DATABASE_URL_SYNC": ""}  # those of .env
    offer = b"sec-websocket-extensions: permessage-deflate\r\n\r\n"
    with (
        serve(copied.path, command=("python", "-c", ECHO), env=env) as server,
        connect(server) as websocket,
    ):
        websocket.sendall(UPGRADE + offer)
        answer = websocket.recv(65536)
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"permessage-deflate" not in answer
        size = 1_100_000
        websocket.sendall(b"\x81\xff" + size.to_bytes(8) + b"\0\0\0\0")
        assert b"\x03\xf1" in received(websocket)  # 1009: too big
