"""The cost of scale: workers, idle connections, rows."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

from measure import report, run
from serving import Server
from wrk import (
    REQUESTS,
    Load,
    fill,
    in_turns,
    middle,
    p99,
    per_cpu,
    prepare,
    rate,
    serve_application,
)

WORKERS = (1, 2, 4)
IDLE = (10, 100, 1000)
ROWS = (1_000, 100_000, 10_000_000)
READS = {kind: path for kind, path in REQUESTS.items() if kind != "create"}
LIMIT = 1.25
SMALL_POOL = {"DATABASE_POOL_SIZE": "5"}  # seven workers of each program fit in 100 connections

Requests = dict[str, str] | dict[str, dict[int, str]]


def scale(project: Path, *rows: int) -> None:
    """1 to 4 workers, 10 to 1,000 idle connections, 1,000 to 10,000,000 rows (at most 1.25)."""
    prepare(project)
    of_workers(project)
    of_idle_connections(project)
    of_rows(project, rows or ROWS)


def efficiency(loads: list[Load]) -> float:
    """Requests of a second of the server's processor time, whatever else the machine does."""
    return middle(loads, per_cpu)


def best_rate(loads: list[Load]) -> float:
    """Requests a second with PostgreSQL's part, in the round that was disturbed least."""
    return max(map(rate, loads))


def of_workers(project: Path) -> None:
    """The cost of a request with more workers ÷ with one, and that ratio ÷ the floor's.

    Four workers on two processors make the requests of any program dearer.
    """
    run(["uv", "pip", "install", "orjson"], project)
    with ExitStack() as stack:
        servers = {
            name: {
                number: stack.enter_context(
                    serve_application(project, application, workers=number, env=SMALL_POOL)
                )
                for number in WORKERS
            }
            for name, application in {"example": "app.main:app", "floor": "floor:app"}.items()
        }
        for kind, path in READS.items():
            example, floor = (
                show_sizes(f"workers of the {name}", these, {kind: path}, efficiency)[kind]
                for name, these in servers.items()
            )
            for number in WORKERS[1:]:
                ratio = example[number] / floor[number]
                report(f"{kind}, {number} workers ÷ 1, example ÷ floor", ratio, LIMIT)


def of_idle_connections(project: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * sum(IDLE))), hard))
    with ExitStack() as stack:
        servers, clients = {}, []
        for number in IDLE:
            server = stack.enter_context(
                serve_application(project, "app.main:app", "--timeout-keep-alive=3600")
            )
            before = server.process.memory_info().rss
            clients += stack.enter_context(idling(server, number))
            added = (server.process.memory_info().rss - before) / 2**10
            print(f"{number} idle connections: {added / number:.1f} KiB for each")
            servers[number] = server
        compare_sizes("idle connections", servers, READS, efficiency)
        report("connections that were lost", sum(not ask(client) for client in clients), 0)


def of_rows(project: Path, rows: tuple[int, ...]) -> None:
    """Each number of rows has a database of its own, so that all are measured in turns."""
    with ExitStack() as stack:
        servers = {}
        for number in rows:
            database = f"rows_{number}"
            create = f"CREATE DATABASE {database} TEMPLATE app"
            admin = ["psql", "-U", "postgres", "-v", "ON_ERROR_STOP=1"]
            run([*admin, "postgres", "-c", create], project)
            run([*admin, database, "-c", "TRUNCATE items RESTART IDENTITY"], project)
            fill(database, number)
            run([*admin, database, "-c", "CHECKPOINT"], project)  # else it writes for minutes
            servers[number] = stack.enter_context(
                serve_application(project, "app.main:app", database=database)
            )
        compare_sizes("rows", servers, READS, best_rate)
        deep = {number: f"/items?after={number - 100}" for number in rows}
        compare_sizes("rows", servers, {"a deep page": deep}, best_rate)


def compare_sizes(
    name: str,
    servers: dict[int, Server],
    requests: Requests,
    figure: Callable[[list[Load]], float],
) -> None:
    """Report the cost of a request at each size ÷ that at the smallest, for each kind."""
    for kind, costs in show_sizes(name, servers, requests, figure).items():
        for size, cost in list(costs.items())[1:]:
            report(f"{kind}, {size} {name}", cost, LIMIT)


def show_sizes(
    name: str,
    servers: dict[int, Server],
    requests: Requests,
    figure: Callable[[list[Load]], float],
) -> dict[str, dict[int, float]]:
    """Print the load at each size. Return its cost ÷ that at the smallest, for each kind."""
    costs = {}
    for kind, path in requests.items():
        loads = in_turns(
            "",
            **{
                str(size): (server, path if isinstance(path, str) else path[size])
                for size, server in servers.items()
            },
        )
        costs[kind] = {
            size: figure(loads[str(min(servers))]) / figure(loads[str(size)]) for size in servers
        }
        for size, cost in costs[kind].items():
            those = loads[str(size)]
            rates = f"{middle(those, rate):.0f}/s, {efficiency(those):.0f}/CPU s"
            print(f"{kind}, {size} {name}: {rates}, p99 {middle(those, p99):.1f} ms, {cost:.2f}")
    return costs


@contextmanager
def idling(server: Server, number: int) -> Iterator[list[HTTPConnection]]:
    """Open connections with one request each, and keep them open."""
    with ExitStack() as stack:
        clients = [HTTPConnection("127.0.0.1", server.port) for _ in range(number)]
        for client in clients:
            client.connect()
            stack.callback(client.close)
        if not all(map(ask, clients)):
            sys.exit("a connection was refused")
        yield clients


def ask(client: HTTPConnection) -> bool:
    """Tell whether the connection still works."""
    kept = client.sock
    try:
        client.request("GET", "/health/live")
        return client.getresponse().read() != b"" and client.sock is kept
    except OSError:
        return False


BENCHMARKS = [scale]
