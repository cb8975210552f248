"""Dockerfile and compose.yaml, carried out without an engine, which a contributor need not have.

A directory stands for the image's root. What a container runs is run by a user who can read that
directory and write to no file, with the variables of the image and no program but its own.
"""

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from conftest import (
    PROJECT_DIRECTORY,
    Project,
    interpreters,
    short_directory,
    tracked,
    user_environment,
)
from dotenv import dotenv_values
from servers import binary, free_port, postgresql, psql

pytestmark = pytest.mark.slow

ROOT = os.geteuid() == 0
SOCKET = "/var/run/postgresql"  # where the image's server and psql have it


def instructions(project: Path) -> list[tuple[str, str]]:
    """What a Dockerfile says, with continued lines joined."""
    text = (project / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def context(project: Path) -> set[str]:
    """The files that `.dockerignore` lets in; of the patterns that match, the last one counts."""
    lines = (project / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    names = {p.relative_to(project).as_posix(): True for p in project.rglob("*") if p.is_file()}
    for pattern in patterns:
        glob = re.escape(pattern.strip("!/")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        for name in names:
            if re.fullmatch(f"{glob}(/.*)?", name):
                names[name] = pattern.startswith("!")
    return {name for name, let_in in names.items() if let_in}


@dataclass
class Image:
    """What a Dockerfile makes of a project, in `root` as if that were `/`."""

    project: Path
    root: Path
    cache: str
    workdir: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    def build(self) -> None:
        for keyword, argument in instructions(self.project):
            self.apply(keyword, argument)

    def apply(self, keyword: str, argument: str) -> None:
        match keyword:
            case "FROM":
                self.start_stage(argument.split()[0])
            case "COPY":
                self.copy(*shlex.split(argument))
            case "ENV":
                self.environment |= dict(pair.split("=") for pair in argument.split())
            case "WORKDIR":
                self.workdir = argument
                self.here(".").mkdir(exist_ok=True)
            case "RUN":
                self.run(argument)
            case "USER":
                self.user = argument
            case "CMD":
                self.command = json.loads(argument)
            case "HEALTHCHECK":
                self.healthcheck = json.loads(argument.split("CMD", 1)[1])
            case _:
                assert keyword == "EXPOSE"

    def here(self, path: str) -> Path:
        return self.root / os.path.join(self.workdir, path).lstrip("/")

    def start_stage(self, base: str) -> None:
        """The stages that Python's image begins hold what is needed of it; uv's is not made."""
        if self.root.exists():
            self.root.rename(self.root.with_name("build"))
        self.root.mkdir()
        python = str(Path(interpreters()[-1]).resolve())
        self.tools = {"python": python, "chmod": "/bin/chmod"} if "python" in base else {}
        self.workdir, self.environment = "/", {}
        self.user, self.command, self.healthcheck = "root", [], []

    def copy(self, *arguments: str) -> None:
        match arguments:
            case ["--from=uv", "/uv", "/usr/local/bin/"]:
                # `uv run` tells its own path; on PATH there may be a script that needs a shell.
                self.tools["uv"] = os.environ.get("UV") or str(shutil.which("uv"))
            case ["--from=build", source, target]:
                built = self.root.with_name("build") / source.lstrip("/")
                shutil.copytree(built, self.here(target), symlinks=True)
            case [*sources, target]:
                for name in context(self.project):
                    if any(source in (".", name, f"{name}*") for source in sources):
                        self.here(target).joinpath(name).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy2(self.project / name, self.here(target) / name)

    def variables(self) -> dict[str, str]:
        """The environment of what runs in this image."""
        programs = self.root / "usr" / "local" / "bin"
        shutil.rmtree(programs, ignore_errors=True)
        programs.mkdir(parents=True)
        for name, target in self.tools.items():
            (programs / name).symlink_to(target)
        path = self.environment.get("PATH", "$PATH").replace("$PATH", str(programs))
        path = path.replace("/project/", f"{self.root}/project/")
        return self.environment | {"PATH": path, "HOME": "/"}

    def run(self, command: str) -> None:
        """As root does while the image is built; uv may use its cache and whatever leads it."""
        environment = user_environment() | {"UV_CACHE_DIR": self.cache} | self.variables()
        result = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.here("."),
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr

    def start(self, command: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
        """As a container with a read-only file system does, under the user of the image."""
        variables = self.variables() | environment
        program = shutil.which(command[0], path=variables["PATH"])
        assert program, f"the image holds no {command[0]}"
        return subprocess.Popen(
            [program, *command[1:]],
            cwd=self.here("."),
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=write_nothing,
            user=int(self.user.split(":")[0]) if ROOT else None,
            extra_groups=[] if ROOT else None,
            start_new_session=True,
        )

    def check(self, url: str) -> "subprocess.Popen[str]":
        """Start the HEALTHCHECK of a container that answers at `url`."""
        address = "http://127.0.0.1:8000"
        assert address in self.healthcheck[-1]
        proxy = {"HTTP_PROXY": "http://127.0.0.1:1"}  # not for this address
        return self.start([word.replace(address, url) for word in self.healthcheck], proxy)


def write_nothing() -> None:
    """No byte to any file, wherever it is."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def finish(process: "subprocess.Popen[str]") -> str:
    """What it says; it must succeed."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def project(baked: Project) -> Path:
    """A checkout in which nobody else may read, before there is a lock file."""
    copy = baked.copy(short_directory()).path
    for path in copy.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return copy


@pytest.fixture(scope="module")
def image(project: Path, uv_cache: str) -> Image:
    directory = short_directory()
    directory.chmod(0o755)
    image = Image(project, directory / "root", uv_cache)
    image.build()
    return image


def test_the_image_holds_the_project_and_no_secret(image: Image) -> None:
    root = image.root / "project"
    names = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    source = {name for name in names if not name.startswith(".venv/") and ".pyc" not in name}
    expected = {n for n in tracked(PROJECT_DIRECTORY) if n.split("/")[0] in ("app", "alembic")}
    expected |= {"README.md", "alembic.ini", "pyproject.toml", "uv.lock"}
    assert source == expected
    for name in expected:
        if name.endswith(".py"):
            path = root / name
            assert list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")), name


def test_the_image_holds_no_development_dependency_and_no_uv(image: Image) -> None:
    groups = (image.project / "pyproject.toml").read_text().split("[dependency-groups]")[1]
    names = set(re.findall(r'"([\w-]+)>=', groups.split("[build-system]")[0]))
    found = {p.name.split("-")[0] for p in image.root.rglob("*.dist-info")}
    assert "fastapi" in found
    assert {name.replace("-", "_") for name in names} & found == set()
    assert image.tools.keys() == {"python", "chmod"}


def test_the_image_is_not_roots(image: Image) -> None:
    """By number: an orchestrator that forbids root knows no names."""
    assert image.user == "10001:10001"


def test_nobody_builds_with_a_lock_file_that_is_out_of_date(
    image: Image, copied: Project, uv_cache: str
) -> None:
    shutil.copy(image.root / "project" / "uv.lock", copied.path)
    copied.replace("pyproject.toml", "structlog>=25.1.0", "structlog>=25.2.0")
    stale = Image(copied.path, short_directory() / "root", uv_cache)
    with pytest.raises(AssertionError, match="--locked"):
        stale.build()


@dataclass
class Compose:
    """compose.yaml with the variables of `.env`, and a PostgreSQL in place of its own."""

    file: dict[str, Any]
    secrets: dict[str, str]
    project: Path
    directory: Path
    port: int

    def environment(self, service: str) -> dict[str, str]:
        given = self.file["services"][service].get("environment", {})
        known = {n: self.secrets.get(n) if v is None else v for n, v in given.items()}
        filled = {n: re.sub(r"\$\{(\w+)[^}]*\}", self.secret, v) for n, v in known.items() if v}
        return {
            name: value.replace("@postgres:5432/", f"@127.0.0.1:{self.port}/")
            for name, value in filled.items()
        }

    def secret(self, variable: re.Match[str]) -> str:
        return self.secrets[variable[1]]

    def order(self) -> list[str]:
        """Services, each after those that it depends on."""
        services = self.file["services"]
        graph = {name: service.get("depends_on", ()) for name, service in services.items()}
        return list(TopologicalSorter(graph).static_order())

    def volumes(self, service: str) -> dict[str, str]:
        """What is mounted, by the place."""
        mounted = self.file["services"][service].get("volumes", [])
        return dict(volume.split(":")[:2][::-1] for volume in mounted)

    def prepare_roles(self) -> None:
        """Run the service `roles`, with psql on the machine."""
        service = self.file["services"]["roles"]
        mounted = self.volumes("roles")
        socket = {"PGHOST": str(self.directory), "PGPORT": str(self.port)}
        assert mounted.pop(SOCKET) == self.volumes("postgres")[SOCKET]
        paths = {target: self.project / source for target, source in mounted.items()}
        for config in service["configs"]:
            paths[config["target"]] = short_directory() / "config"
            paths[config["target"]].write_text(self.file["configs"][config["source"]]["content"])
        command = [
            re.sub(r"(?<==)/.*", lambda path: str(paths[path[0]]), word)
            for word in service["command"]
        ]
        result = subprocess.run(
            [binary(command[0]), *command[1:]],
            env=self.environment("roles") | socket,
            capture_output=True,
            text=True,
        )
        assert (result.returncode, result.stderr) == (0, "")


@pytest.fixture(scope="module")
def compose(project: Path) -> Iterator[Compose]:
    """Its server runs and, as the image's does, asks those for a password who come by TCP."""
    secrets = {name: str(value) for name, value in dotenv_values(project / ".env").items()}
    directory = short_directory()
    with postgresql(
        directory, "local all all trust\nhost all all all scram-sha-256\n", {}
    ) as port:
        file = yaml.safe_load((project / "compose.yaml").read_text())
        compose = Compose(file, secrets, project, directory, port)
        psql(directory, port, f"CREATE DATABASE {compose.environment('postgres')['POSTGRES_DB']}")
        yield compose


def test_compose_waits_for_what_comes_before(compose: Compose) -> None:
    assert compose.order() == ["postgres", "roles", "migrate", "app"]
    conditions = {
        (name, other): how["condition"]
        for name, service in compose.file["services"].items()
        for other, how in service.get("depends_on", {}).items()
    }
    assert conditions == {
        ("roles", "postgres"): "service_healthy",
        ("migrate", "roles"): "service_completed_successfully",
        ("app", "migrate"): "service_completed_successfully",
    }
    health = compose.file["services"]["postgres"]["healthcheck"]["test"]
    command = [binary(health[1]), *health[2:], "--port", str(compose.port)]
    subprocess.run(command, check=True, capture_output=True)


def test_compose_shows_itself_to_this_machine_alone(compose: Compose) -> None:
    ports = [port for s in compose.file["services"].values() for port in s.get("ports", [])]
    assert ports == ["127.0.0.1:8000:8000"]


def test_the_database_outlives_its_container(compose: Compose) -> None:
    """Where the image keeps it from version 18 on."""
    assert compose.file["services"]["postgres"]["image"] == "postgres:18"
    volume = compose.volumes("postgres")["/var/lib/postgresql"]
    assert volume in compose.file["volumes"]


def test_a_container_of_the_project_can_do_no_more_than_it_must(compose: Compose) -> None:
    for name in ("migrate", "app"):
        service = compose.file["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_only_what_serves_is_asked_whether_it_does(compose: Compose) -> None:
    """The image's HEALTHCHECK holds for each of its services that does not say otherwise."""
    services = compose.file["services"]
    assert services["migrate"]["healthcheck"] == {"disable": True}
    assert "healthcheck" not in services["app"]


def test_every_setting_reaches_the_application(image: Image, compose: Compose) -> None:
    script = "from app.config import Settings; print(*Settings.model_fields)"
    names = finish(image.start(["python", "-c", script], {})).upper().split()
    here = {"DATABASE_URL_SYNC", "DATABASE_POOLER"}  # of migrations; there is no pooler
    told = set(compose.file["services"]["app"]["environment"])
    servers = {"FORWARDED_ALLOW_IPS", "UVICORN_LOG_LEVEL", "WEB_CONCURRENCY"}
    assert told == set(names) - here | servers


def test_each_service_is_told_its_own_secret(compose: Compose) -> None:
    secrets = {name for name in compose.secrets if name.endswith("_PASSWORD")}
    for service, known in (("migrate", "APP_OWNER_PASSWORD"), ("app", "APP_PASSWORD")):
        told = " ".join(compose.environment(service).values())
        assert {name for name in secrets if compose.secrets[name] in told} == {known}
    text = (compose.project / "compose.yaml").read_text()
    assert not [name for name in secrets if compose.secrets[name] in text]


@contextmanager
def serving(image: Image, compose: Compose) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The container `app`, and the address at which it answers."""
    port = str(free_port())
    command = [port if word == "8000" else word for word in image.command]
    process = image.start(command, compose.environment("app"))
    try:
        assert process.stdout
        for line in process.stdout:
            if "Uvicorn running" in line:
                break
        yield process, f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
        process.communicate()


def test_compose_starts_the_application(image: Image, compose: Compose) -> None:
    """Twice, as a machine does that is switched on again; then with another `.env`."""
    compose.secrets["ALLOWED_HOSTS"] = "api.example.com"
    for workers in ("1", "2"):
        compose.secrets["WEB_CONCURRENCY"] = workers
        compose.secrets["APP_PASSWORD"] += workers
        compose.secrets["APP_OWNER_PASSWORD"] += workers
        compose.prepare_roles()
        migrate = compose.file["services"]["migrate"]["command"]
        finish(image.start(migrate, compose.environment("migrate")))
        with serving(image, compose) as (server, url):
            # Several workers listen a moment after their parent says so.
            patient = httpx.HTTPTransport(retries=7)
            with httpx.Client(transport=patient, base_url=url, timeout=30) as client:
                assert client.get("/health/ready").status_code == 200
                assert client.get("/items").status_code == 400
                client.headers["host"] = "api.example.com"
                assert client.post("/items", json={"name": workers}).status_code == 201
                names = [item["name"] for item in client.get("/items").json()["items"]]
                assert names[-1] == workers
            finish(image.check(url))
            server.send_signal(signal.SIGTERM)
            output, _ = server.communicate(timeout=10)
            assert "Application shutdown complete" in output
            assert server.returncode in (0, -signal.SIGTERM)
            check = image.check(url)
            check.communicate(timeout=10)
            assert check.returncode != 0
    assert len(names) == 2


def test_compose_gives_the_application_no_more_rights(image: Image, compose: Compose) -> None:
    compose.prepare_roles()
    told = compose.environment("app")
    output = image.start(["alembic", "downgrade", "base"], told).communicate(timeout=60)[0]
    assert "DATABASE_URL_SYNC must name the role that owns the schema" in output


def test_a_container_writes_nothing(image: Image) -> None:
    """Else the tests above would prove less than they say."""
    directory = short_directory()
    directory.chmod(0o777)
    told = {"DATABASE_URL": "postgresql://app@localhost/app"}
    for place in (directory, *((image.root / "project",) if ROOT else ())):
        script = f"import app.main; open('{place}/written', 'w').write('x')"
        output = image.start(["python", "-c", script], told).communicate(timeout=60)[0]
        assert "File too large" in output or "Permission denied" in output
