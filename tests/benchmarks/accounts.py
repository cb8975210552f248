"""Logins: what they cost, what they leave to others, and what their time tells."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles

import httpx
from measure import TEMPLATE, generate, report, run
from serving import Server
from wrk import fill, in_turns, middle, rate, serve_application

PASSWORD, OTHER = "correct horse battery", "another long password"
LOGINS = 60
PATHS = ["login", "register", "password/forgot", "verify/resend"]
OPEN = """
from app.items import routes
from app.main import app

app.include_router(routes.router, prefix="/open")
"""
FILL = """
import asyncio
from datetime import timedelta

from app.auth import tokens
from app.auth.passwords import HASHER
from app.config import get_settings
from app.database import Database, create_engine
from app.models.account import Account, TokenKind
from sqlalchemy import func


async def main() -> None:
    async with Database(create_engine(get_settings())).sessions.begin() as session:
        hashed = HASHER.hash("{password}")
        for n in range(40):
            values = {"email": f"known{n}@example.com", "password_hash": hashed}
            session.add(account := Account(**values, verified_at=func.now()))
        await session.flush()
        token, _ = await tokens.issue(session, account.id, TokenKind.SESSION, timedelta(days=1))
        print(token)


asyncio.run(main())
"""


def prepare(work: Path) -> tuple[Path, str]:
    """Return a project with 40 verified accounts, and a session's token."""
    project = generate(work.parent / "accounts", TEMPLATE, "auth=accounts")
    (project / "open_app.py").write_text(OPEN)
    run(["uv", "sync", "--quiet"], project)
    python = str(project / ".venv/bin/python")
    run([python, "-m", "alembic", "-q", "-c", "alembic.ini", "upgrade", "head"], project)
    command = [python, "-c", FILL.replace("{password}", PASSWORD)]
    token = subprocess.check_output(command, cwd=project, env=os.environ, text=True)
    return project, token.strip()


def login(project: Path) -> None:
    """What a login adds to reads: the same routes with it and without it, in one process."""
    project, os.environ["TOKEN"] = prepare(project)  # signed_in.lua reads it
    fill("app", 1000)
    with serve_application(project, "open_app:app") as server:
        for kind, path in {"a page of 50": "/items", "one by key": "/items/1"}.items():
            names = {"with a login": (server, path), "without": (server, f"/open{path}")}
            signed, other = in_turns("signed_in.lua", **names).values()
            micros = 1e6 / middle(signed, rate) - 1e6 / middle(other, rate)
            print(f"{kind}: a login adds {micros:.0f} µs to {1e6 / middle(other, rate):.0f}")


def logins(project: Path) -> None:
    """60 logins at once, while another client reads (its p99 at most 250 ms)."""
    project, token = prepare(project)
    with serve_application(project, "app.main:app") as server:
        before = server.process.memory_info().rss
        statuses, times, seconds = asyncio.run(flood(server, token))
        grown = (server.process.memory_info().rss - before) / 2**20
    print(f"{LOGINS} logins in {seconds:.1f} s, {grown:.0f} MiB more, {len(times)} reads beside")
    report("p99 of the reads, ms", quantiles(times, n=100)[98] * 1000, 250)
    if set(statuses) != {200}:
        sys.exit(f"statuses: {sorted(set(statuses))}")


async def flood(server: Server, token: str) -> tuple[list[int], list[float], float]:
    """Return the statuses of logins and reads, the times of the reads, and the logins' time."""
    statuses: list[int] = []
    times: list[float] = []
    done = asyncio.Event()
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:

        async def log_in(number: int) -> None:
            body = {"email": f"known{number % 40}@example.com", "password": PASSWORD}
            statuses.append((await client.post("/auth/login", json=body)).status_code)

        async def read() -> None:
            headers = {"authorization": f"Bearer {token}"}
            while not done.is_set() or len(times) < 20:
                start = time.perf_counter()
                statuses.append((await client.get("/items", headers=headers)).status_code)
                times.append(time.perf_counter() - start)
                await asyncio.sleep(0.005)

        reader = asyncio.create_task(read())
        start = time.perf_counter()
        await asyncio.gather(*map(log_in, range(LOGINS)))
        seconds = time.perf_counter() - start
        done.set()
        await reader
    return statuses, times, seconds


def enumeration(project: Path) -> None:
    """Responses about known and unknown addresses, alike and as fast (within 15 % or 2 ms)."""
    project, _ = prepare(project)
    os.environ["MAIL_URL"] = "smtp+plain://192.0.2.1"  # does not answer
    told = False
    with (
        serve_application(project, "app.main:app") as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        for path in PATHS:
            times, answers = compare(client, path)
            known, unknown = (median(each) * 1000 for each in times.values())
            tells = len(answers) > 1 or abs(known - unknown) > max(2, 0.15 * known)
            told |= tells
            mark = " TELLS" if tells else ""
            print(f"{path}: known {known:.1f} ms, unknown {unknown:.1f} ms{mark}")
    sys.exit(told)


Answers = set[tuple[int, str]]


def compare(client: httpx.Client, path: str) -> tuple[dict[str, list[float]], Answers]:
    """Send bodies with known and unknown addresses in turns, each pair from another client."""
    times: dict[str, list[float]] = {"known": [], "unknown": []}
    answers: Answers = set()
    for n in range(40):
        for kind in sorted(times, reverse=n % 2 == 0):
            body = {"email": f"{kind}{n}@example.com", "password": OTHER}
            client.get("/health/ready")  # the server has ended its work for the last request
            start = time.perf_counter()
            sender = {"X-Forwarded-For": f"198.51.100.{n}"}
            response = client.post(f"/auth/{path}", json=body, headers=sender)
            times[kind].append(time.perf_counter() - start)
            answers.add((response.status_code, response.text))
    return times, answers


BENCHMARKS = [login, logins, enumeration]
