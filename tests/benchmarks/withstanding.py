"""Attacks on a served project."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import PIPE

import attacks
from attacks import POST, Report, answer_of, flood, post
from measure import run
from serving import Server, serve

SIZE = 40_000_000  # bytes of a flood
MEMORY = 100  # MiB: the limit of a process's growth

# The commands of docs/deploy.md and of the Dockerfile, and of README.md.
COMMANDS = {
    "python -m app": ("python", "-m", "app", "--port=PORT"),
    "uv run dev": (
        *("uvicorn", "app.main:app", "--port=PORT"),
        *("--http=app.web.server:Protocol", "--timeout-graceful-shutdown=0"),
    ),
}


def attack(project: Path) -> None:
    """Floods, slow clients and locked rows: refused, served beside, memory (+100 MiB at most)."""
    run([str(project / ".venv/bin/alembic"), "-q", "upgrade", "head"], project)
    broken = False
    for title, command in COMMANDS.items():
        print(title)
        with serve(project, command=command, env=os.environ) as server:
            for kind, (tries, one) in scenarios(server).items():
                report = attacks.attack(server, tries, one)
                bad = report.refused < report.tried or report.failed or report.grown > MEMORY
                broken |= bool(bad)
                print(f"  {kind}: {report}{' BROKEN' if bad else ''}", flush=True)
            broken |= locked_row(server)
    sys.exit(broken)


def scenarios(server: Server) -> dict[str, tuple[int, Callable[[], bool]]]:
    """Return how often each attack is tried, and the attack, which tells whether it is refused."""

    def refused(request: bytes, status: bytes) -> bool:
        return answer_of(server, request).startswith(b"HTTP/1.1 " + status)

    offer = b"connection: close, upgrade\r\nupgrade: "
    part = POST + b"content-length: 100\r\n\r\n{"
    return {
        **{kind: (2, partial(flood, server, kind, SIZE)) for kind in attacks.FLOODS},
        "silent connection": (50, partial(refused, b"", b"408")),
        "unfinished head": (50, partial(refused, b"GET / HTTP/1.1\r\nho", b"408")),
        "unfinished body": (50, partial(refused, part, b"408")),
        "offer of h2c with a body": (20, partial(refused, post("a", offer + b"h2c"), b"400")),
        "offer of WebSocket with a body": (
            20,
            partial(refused, post("a", offer + b"websocket"), b"400"),
        ),
    }


HOLD = """
INSERT INTO items (name) VALUES ('held') ON CONFLICT DO NOTHING;
BEGIN;
UPDATE items SET name = name WHERE name = 'held' RETURNING id;
"""


def locked_row(server: Server) -> bool:
    """Send 60 writers to a row that another client holds. Tell whether a promise is broken."""
    with subprocess.Popen(
        ["psql", "-XqAt", "-vON_ERROR_STOP=1"], stdin=PIPE, stdout=PIPE, text=True
    ) as holder:
        assert holder.stdin
        assert holder.stdout
        holder.stdin.write(HOLD)
        holder.stdin.flush()
        item = int(holder.stdout.readline())
        body = b'{"description": "new"}'
        request = (
            b"PATCH /items/%d HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (item, len(body), body)
        )
        ready: list[bool] = []

        def write() -> bool:
            probe = b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            answer = answer_of(server, request)
            ready.append(answer_of(server, probe).startswith(b"HTTP/1.1 200 "))
            return answer.startswith(b"HTTP/1.1 503 ")

        report: Report = attacks.attack(server, 60, write)
        bad = report.refused < 60 or report.failed or not all(ready)
        print(f"  writers of a locked row: {report}, ready {sum(ready)} of {len(ready)} times")
    return bool(bad)


BENCHMARKS = [attack]
