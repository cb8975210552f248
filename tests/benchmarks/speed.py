"""Requests to a served project, compared with applications that do less."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from accounts import login
from measure import report, report_ratio, run
from wrk import REQUESTS, Load, in_turns, middle, p99, per_cpu, prepare, rate, serve_application

AT_LEAST = {"a page of 50": 1.6, "one by key": 1.6, "create": 1.1}  # ÷ the usual template
PEERS = {  # see peers/
    "the example": "app.main:app",
    "usual": "usual:app",
    "Litestar": "litestar_sqlalchemy:app",
    "Django Ninja": "django_ninja:app",
    "asyncpg": "fastapi_asyncpg:app",
    "floor": "floor:app",
}
PACKAGES = ["django", "django-ninja", "litestar[sqlalchemy]", "orjson", "psycopg[pool]"]


def speed(project: Path) -> None:
    """The example beside its peers (÷ usual: reads at least 1.6, create 1.1, p99 at most 0.5)."""
    prepare(project)
    run(["uv", "pip", "install", *PACKAGES], project)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serve_application(project, application))
            for name, application in PEERS.items()
        }
        print(f"{'':13} {'':12} requests/s    /CPU s  p50 ms  p99 ms     MiB")
        for kind, path in REQUESTS.items():
            script = "create.lua" if kind == "create" else ""
            show(kind, in_turns(script, **{name: (servers[name], path) for name in servers}))
    login(project)


def show(kind: str, loads: dict[str, list[Load]]) -> None:
    """Print the medians, and the example's divided by those of the usual template and floor."""
    figures: list[Callable[[Load], float]] = [
        rate,
        per_cpu,
        lambda load: load.percentiles["50"],
        p99,
        lambda load: load.memory,
    ]
    for name, those in loads.items():
        row = (middle(those, figure) for figure in figures)
        print(f"{kind:13} {name:12}", "{:10.0f} {:9.0f} {:7.1f} {:7.1f} {:7.0f}".format(*row))
    ours, usual, floor = (loads[name] for name in ("the example", "usual", "floor"))
    report_ratio(f"{kind} ÷ usual", middle(ours, rate) / middle(usual, rate), AT_LEAST[kind])
    report(f"{kind}, p99 ÷ usual", middle(ours, p99) / middle(usual, p99), 0.5)
    efficiency = middle(ours, per_cpu) / middle(usual, per_cpu)
    print(f"{kind} ÷ usual, of processor time: {efficiency:.2f}")
    print(f"{kind} ÷ floor: {middle(ours, rate) / middle(floor, rate):.2f} (aim: 0.33)")


BENCHMARKS = [speed]
