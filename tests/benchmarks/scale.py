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
    with ExitStack() as stack:
        servers = {
            number: stack.enter_context(serve_application(project, "app.main:app", workers=number))
            for number in WORKERS
        }
        compare_sizes("workers", servers, READS, efficiency)


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
    requests: dict[str, str] | dict[str, dict[int, str]],
    figure: Callable[[list[Load]], float],
) -> None:
    """Report the cost of a request at each size ÷ that at the smallest, for each kind."""
    for kind, path in requests.items():
        loads = in_turns(
            "",
            **{
                str(size): (server, path if isinstance(path, str) else path[size])
                for size, server in servers.items()
            },
        )
        smallest, *larger = loads
        for size, those in loads.items():
            rates = f"{middle(those, rate):.0f}/s, {efficiency(those):.0f}/CPU s"
            result = f"{rates}, p99 {middle(those, p99):.1f} ms"
            print(f"{kind}, {size} {name}: {result}")
        for size in larger:
            cost = figure(loads[smallest]) / figure(loads[size])
            report(f"{kind}, {name}, {size} ÷ {smallest}", cost, LIMIT)


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
