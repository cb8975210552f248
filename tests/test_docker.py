"""Dockerfile and compose.yaml, executed without Docker, which contributors need not have.

A directory is the root of the image. Commands of containers run as a user who can read this
directory and cannot write to any file, with the variables and programs of the image only.
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
import post_gen_project
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
SOCKET = "/var/run/postgresql"  # the directory of the socket in the image postgres


def instructions(project: Path) -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, with continued lines joined."""
    text = (project / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def context(project: Path) -> set[str]:
    """The files that `.dockerignore` admits. The last pattern that matches a file decides."""
    lines = (project / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    names = {p.relative_to(project).as_posix(): True for p in project.rglob("*") if p.is_file()}
    for pattern in patterns:
        glob = re.escape(pattern.strip("!/")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        for name in names:
            if re.fullmatch(f"{glob}(/.*)?", name):
                names[name] = pattern.startswith("!")
    return {name for name, admitted in names.items() if admitted}


def python() -> str:
    """The newest interpreter that the user of the image may run."""
    paths = [Path(name).resolve() for name in ("/usr/bin/python3", *interpreters())]
    public = [path for path in paths if all(p.stat().st_mode & 0o1 for p in path.parents)]
    return str((public if ROOT and public else paths)[-1])


@dataclass
class Image:
    """The image that the Dockerfile builds. The directory `root` is its `/`."""

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
        """Begin a stage. An image of Python provides two programs; others stay empty."""
        if self.root.exists():
            self.root.rename(self.root.with_name("build"))
        self.root.mkdir()
        self.tools = {"python": python(), "chmod": "/bin/chmod"} if "python" in base else {}
        self.workdir, self.environment = "/", {}
        self.user, self.command, self.healthcheck = "root", [], []

    def copy(self, *arguments: str) -> None:
        match arguments:
            case ["--from=uv", "/uv", "/usr/local/bin/"]:
                # `uv run` sets UV. On PATH there may be a wrapper script that needs a shell.
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
        """The environment of commands in this image."""
        programs = self.root / "usr" / "local" / "bin"
        shutil.rmtree(programs, ignore_errors=True)
        programs.mkdir(parents=True)
        for name, target in self.tools.items():
            (programs / name).symlink_to(target)
        path = self.environment.get("PATH", "$PATH").replace("$PATH", str(programs))
        path = path.replace("/project/", f"{self.root}/project/")
        return self.environment | {"PATH": path, "HOME": "/"}

    def run(self, command: str) -> None:
        """Run a command of the build, as root. uv may use its cache and its configuration."""
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
        """Start a command as the user of the image, with a read-only file system."""
        variables = self.variables() | environment
        program = shutil.which(command[0], path=variables["PATH"])
        assert program, f"the image has no {command[0]}"
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
        """Start the HEALTHCHECK of a container that serves at `url`."""
        address = "http://127.0.0.1:8000"
        assert address in self.healthcheck[-1]
        proxy = {"HTTP_PROXY": "http://127.0.0.1:1"}  # must not be used for this address
        return self.start([word.replace(address, url) for word in self.healthcheck], proxy)


def write_nothing() -> None:
    """Forbid this process to write to files."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def finish(process: "subprocess.Popen[str]") -> str:
    """Return the output of a process. It must succeed."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def project(baked: Project) -> Path:
    """A checkout without a lock file, readable for its owner only."""
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


def test_image_has_the_files_of_the_application_only(image: Image) -> None:
    """No secret, no tests, no dev/. Every Python file is compiled."""
    root = image.root / "project"
    names = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    source = {name for name in names if not name.startswith(".venv/") and ".pyc" not in name}
    expected = {n for n in tracked(PROJECT_DIRECTORY) if n.split("/")[0] in ("app", "alembic")}
    expected -= {name for names in post_gen_project.OPTIONAL.values() for name in names.split()}
    expected |= {"README.md", "alembic.ini", "pyproject.toml", "uv.lock"}
    assert source == expected
    for name in expected:
        if name.endswith(".py"):
            path = root / name
            assert list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc")), name


def test_image_has_no_development_dependency_and_no_uv(image: Image) -> None:
    groups = (image.project / "pyproject.toml").read_text().split("[dependency-groups]")[1]
    names = set(re.findall(r'"([\w-]+)>=', groups.split("[build-system]")[0]))
    found = {p.name.split("-")[0] for p in image.root.rglob("*.dist-info")}
    assert "fastapi" in found
    assert {name.replace("-", "_") for name in names} & found == set()
    assert image.tools.keys() == {"python", "chmod"}


def test_base_images_are_fixed_by_digest(baked: Project) -> None:
    """Except those that the Dockerfile names itself. Dependabot reads each."""
    stages = [text.split() for keyword, text in instructions(baked.path) if keyword == "FROM"]
    names = {words[2] for words in stages if words[1:2] == ["AS"]}
    bases = [words[0] for words in stages if words[0] not in names]
    assert len(bases) == 2
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base) for base in bases)
    config = yaml.safe_load((baked.path / ".github/dependabot.yml").read_text())
    assert "docker" in {update["package-ecosystem"] for update in config["updates"]}


def test_image_does_not_run_as_root(image: Image) -> None:
    """The user is a number, because Kubernetes cannot check a name for `runAsNonRoot`."""
    assert image.user == "10001:10001"


def test_outdated_lock_file_fails_the_build(image: Image, copied: Project, uv_cache: str) -> None:
    shutil.copy(image.root / "project" / "uv.lock", copied.path)
    copied.replace("pyproject.toml", "structlog>=25.1.0", "structlog>=25.2.0")
    stale = Image(copied.path, short_directory() / "root", uv_cache)
    with pytest.raises(AssertionError, match="--locked"):
        stale.build()


@dataclass
class Compose:
    """compose.yaml with the variables of `.env`, on a PostgreSQL of the test."""

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
        """The services in the order of their dependencies."""
        services = self.file["services"]
        graph = {name: service.get("depends_on", ()) for name, service in services.items()}
        return list(TopologicalSorter(graph).static_order())

    def volumes(self, service: str) -> dict[str, str]:
        """The volumes of a service, by mount point."""
        mounted = self.file["services"][service].get("volumes", [])
        return dict(volume.split(":")[:2][::-1] for volume in mounted)

    def prepare_roles(self) -> None:
        """Run the service `roles` with the psql of this machine."""
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
    """The services, with a running server that asks for passwords on TCP, as the image does."""
    secrets = {name: str(value) for name, value in dotenv_values(project / ".env").items()}
    directory = short_directory()
    with postgresql(
        directory, "local all all trust\nhost all all all scram-sha-256\n", {}
    ) as port:
        file = yaml.safe_load((project / "compose.yaml").read_text())
        compose = Compose(file, secrets, project, directory, port)
        psql(directory, port, f"CREATE DATABASE {compose.environment('postgres')['POSTGRES_DB']}")
        yield compose


def test_services_wait_for_their_dependencies(compose: Compose) -> None:
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


def test_only_this_machine_can_connect(compose: Compose) -> None:
    ports = [port for s in compose.file["services"].values() for port in s.get("ports", [])]
    assert ports == ["127.0.0.1:8000:8000"]


def test_database_is_on_a_volume(compose: Compose) -> None:
    """The image has its data in this directory from version 18 on."""
    assert compose.file["services"]["postgres"]["image"] == "postgres:18"
    volume = compose.volumes("postgres")["/var/lib/postgresql"]
    assert volume in compose.file["volumes"]


def test_containers_are_read_only_and_unprivileged(compose: Compose) -> None:
    for name in ("migrate", "app"):
        service = compose.file["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert compose.file["services"]["app"]["tmpfs"] == ["/tmp"]  # noqa: S108 - for large uploads


def test_only_the_server_has_a_healthcheck(compose: Compose) -> None:
    """The HEALTHCHECK of the image applies to every service that does not disable it."""
    services = compose.file["services"]
    assert services["migrate"]["healthcheck"] == {"disable": True}
    assert "healthcheck" not in services["app"]


def test_compose_passes_every_setting(image: Image, compose: Compose) -> None:
    def fields(module: str, name: str) -> set[str]:
        script = f"from {module} import {name}; print(*{name}.model_fields)"
        return set(finish(image.start(["python", "-c", script], {})).upper().split())

    services = compose.file["services"]
    unused = {"DATABASE_URL_SYNC", "DATABASE_POOLER"}  # for migrations; there is no pooler
    uvicorn = {"FORWARDED_ALLOW_IPS", "UVICORN_LOG_LEVEL", "WEB_CONCURRENCY"}
    passed = set(services["app"]["environment"])
    assert passed == fields("app.config", "Settings") - unused | uvicorn
    migrations = fields("app.database.settings", "MigrationSettings")
    own = {name for name in migrations if name.startswith("MIGRATION_")}
    assert own
    assert set(services["migrate"]["environment"]) == own | {"DATABASE_URL_SYNC"}


def test_each_service_gets_its_own_password_only(compose: Compose) -> None:
    secrets = {name for name in compose.secrets if name.endswith("_PASSWORD")}
    for service, known in (("migrate", "APP_OWNER_PASSWORD"), ("app", "APP_PASSWORD")):
        values = " ".join(compose.environment(service).values())
        assert {name for name in secrets if compose.secrets[name] in values} == {known}
    text = (compose.project / "compose.yaml").read_text()
    assert not [name for name in secrets if compose.secrets[name] in text]


@contextmanager
def serving(image: Image, compose: Compose) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the container `app`. Yields its process and its URL."""
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
    """Twice, with new passwords and another number of workers the second time."""
    compose.secrets["ALLOWED_HOSTS"] = "api.example.com"
    for workers in ("1", "2"):
        compose.secrets["WEB_CONCURRENCY"] = workers
        compose.secrets["APP_PASSWORD"] += workers
        compose.secrets["APP_OWNER_PASSWORD"] += workers
        compose.prepare_roles()
        migrate = compose.file["services"]["migrate"]["command"]
        finish(image.start(migrate, compose.environment("migrate")))
        with serving(image, compose) as (server, url):
            # Workers listen a moment after their parent logs that the server runs.
            retrying = httpx.HTTPTransport(retries=7)
            with httpx.Client(transport=retrying, base_url=url, timeout=30) as client:
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
            check.communicate(timeout=60)
            assert check.returncode != 0
    assert len(names) == 2


def test_application_of_compose_cannot_migrate(image: Image, compose: Compose) -> None:
    compose.prepare_roles()
    env = compose.environment("app")
    output = image.start(["alembic", "stamp", "--purge", "head"], env).communicate(timeout=60)[0]
    assert "DATABASE_URL_SYNC must name the role that owns the schema" in output


def test_containers_of_these_tests_cannot_write(image: Image) -> None:
    """Otherwise the tests above would not prove that a read-only file system suffices."""
    directory = short_directory()
    directory.chmod(0o777)
    env = {"DATABASE_URL": "postgresql://app@localhost/app"}
    for place in (directory, *((image.root / "project",) if ROOT else ())):
        script = f"import app.main, pathlib; pathlib.Path('{place}/file').write_text('x')"
        output = image.start(["python", "-c", script], env).communicate(timeout=60)[0]
        assert "File too large" in output or "Permission denied" in output
