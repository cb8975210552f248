"""What telemetry costs a request: switched on, switched off, and not chosen."""

from contextlib import ExitStack
from pathlib import Path
from statistics import median

from measure import TEMPLATE, generate, report_ratio, run
from otlp import receiver
from wrk import REQUESTS, in_turns, middle, per_cpu, prepare, rate, serve_application

ALL = {"OTEL_TRACES_SAMPLER": "always_on"}  # not the default
AT_LEAST = {"on": ("off", 0.75), "every trace": ("off", None), "off": ("without", 0.98)}
MANY = 8, 1  # rounds, and seconds of each load: the machine's pace changes within minutes


def telemetry(project: Path) -> None:
    """Requests, one in ten traced ÷ no endpoint (at least 0.75); no endpoint ÷ no option (0.98).

    One in ten is the default. The cost of tracing all is printed beside it, without a limit.
    """
    prepare(project)
    without = generate(project.parent / "without", TEMPLATE)
    run(["uv", "sync", "--quiet"], without)
    with ExitStack() as stack:
        received = stack.enter_context(receiver())
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.url}
        served = {  # what is compared is side by side
            "every trace": serve_application(project, "app.main:app", env=endpoint | ALL),
            "on": serve_application(project, "app.main:app", env=endpoint),
            "off": serve_application(project, "app.main:app"),
            "without": serve_application(without, "app.main:app"),
        }
        servers = {name: stack.enter_context(server) for name, server in served.items()}
        for kind, path in REQUESTS.items():
            script = "create.lua" if kind == "create" else ""
            urls = {name: (server, path) for name, server in servers.items()}
            loads = in_turns(script, *MANY, **urls)
            for name, more in in_turns(script, *MANY, **dict(reversed(urls.items()))).items():
                loads[name] += more
            for name, those in loads.items():
                print(f"{kind:13} {name:11} {middle(those, rate):7.0f} requests/s")
            for name, (other, limit) in AT_LEAST.items():
                for word, figure in (("", rate), (", of processor time", per_cpu)):
                    # Of loads that follow each other: the machine may have other work too.
                    pairs = zip(loads[name], loads[other], strict=True)
                    ratio = median(figure(ours) / figure(theirs) for ours, theirs in pairs)
                    title = f"{kind}, {name} ÷ {other}{word}"
                    if limit is None:
                        print(f"{title}: {ratio:.2f}")
                    else:
                        report_ratio(title, ratio, limit)


BENCHMARKS = [telemetry]
