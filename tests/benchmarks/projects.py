"""A project: its generation, its first response, its tests, its recipes."""

import json
import shutil
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from measure import (
    ENVIRONMENT,
    EVERYTHING,
    TEMPLATE,
    answers,
    compare,
    generate,
    install,
    report,
    run,
)


def generation(work: Path) -> None:
    """Cookiecutter with the hooks ÷ without them (at most 1.20; with every option 1.25)."""
    bare, product = work / "bare", "{{cookiecutter.project_slug}}"
    shutil.copytree(TEMPLATE / product, bare / product)
    shutil.copy(TEMPLATE / "cookiecutter.json", bare)
    for name, chosen, limit in (("", [], 1.20), (", every option", EVERYTHING, 1.25)):
        compare(
            f"with hooks{name}",
            partial(generate, work / f"a{limit}", TEMPLATE, *chosen),
            "without",
            partial(generate, work / f"b{limit}", bare, *chosen),
            limit=limit,
        )


def first_response(work: Path) -> None:
    """Seconds from `cookiecutter` to the first 200 from /items (at most 15)."""
    start = time.perf_counter()
    project = generate(work, TEMPLATE)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = ["uv", "run", "--quiet", "dev", "--port", str(port)]
    server = subprocess.Popen(command, cwd=project, env=ENVIRONMENT)
    try:
        while not answers(f"http://127.0.0.1:{port}/items"):
            if server.poll() is not None or time.perf_counter() - start > 60:
                sys.exit("the application did not answer")
            time.sleep(0.02)
        report("first 200 from /items", time.perf_counter() - start, 15, "s")
    finally:
        server.terminate()
        server.wait()


def suite(work: Path) -> None:
    """Seconds of the generated project's test suite (at most 15; with every option 60)."""
    for name, chosen, limit in (("", [], 15), (", every option", EVERYTHING, 60)):
        project = install(work, *chosen)
        for options in ([], ["-n", "2"]):
            start = time.perf_counter()
            run(["uv", "run", "--quiet", "pytest", "-q", *options], project)
            seconds = time.perf_counter() - start
            report(" ".join(["pytest", *options]) + name, seconds, limit, "s")


def recipes(work: Path) -> None:
    """A writer's longest stall in each recipe for migrations, 1,000,000 rows (at most 250 ms)."""
    project = generate(work, TEMPLATE)
    for mode in ("naive", "stall"):
        script = ["python", str(TEMPLATE / "tests" / "recipes.py"), mode, "1000000"]
        command = ["uv", "run", "--quiet", "dev", *script]
        with subprocess.Popen(
            command, cwd=project, env=ENVIRONMENT, stdout=subprocess.PIPE
        ) as process:
            for line in process.stdout or ():
                result = json.loads(line)
                if "error" in result:
                    sys.exit(result["error"])
                longest = max(result["stalls"])
                if mode == "naive":
                    print(f"{result['recipe']}, without it: {longest} ms")
                else:
                    report(result["recipe"], longest, 250, "ms")


BENCHMARKS = [generation, first_response, suite, recipes]
