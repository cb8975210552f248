"""The manifests of `kubernetes=yes`: valid, consistent, and carried out without Kubernetes."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import kubernetes_validate
import manifests
import pytest
import readmes
import yaml
from conftest import Bake, Project, bake_with, choices, short_directory
from dotenv import dotenv_values
from manifests import Object, container, environment, objects
from pytest_cookies.plugin import Cookies
from servers import free_port, pgbouncer, postgresql, psql, run_as_account, write_certificates
from serving import wait_until
from test_docker import Image, finish

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

PAGE = f"{readmes.PRODUCT}/docs/kubernetes.md"
# Kinds of the operator, each with its own schema.
OPERATOR = "postgresql.cnpg.io/v1"
STORE = "barmancloud.cnpg.io/v1"
SCHEMAS = ["@kubernetes-models/cloudnative-pg@2.0.0", "typescript@5.9.3"]  # of npm


@pytest.fixture(scope="module")
def project(cookies_session: Cookies) -> Path:
    """A project with manifests, and with all that adds to them."""
    answers = {"kubernetes": True, "jobs": True, "auth": "accounts", "telemetry": True}
    return bake_with(cookies_session, answers).path


@pytest.fixture(scope="module")
def known(project: Path) -> dict[tuple[str, str], Object]:
    return objects(project)


@pytest.mark.parametrize("jobs", [True, False])
def test_kustomize_builds_what_the_files_say(bake: Bake, jobs: bool) -> None:
    """And each file is listed."""
    kubectl = shutil.which("kubectl") or pytest.skip("needs kubectl, of kubernetes-client")
    project = bake(kubernetes=True, jobs=jobs, docker=False).path
    place = manifests.directory(project)
    build = subprocess.run(
        [kubectl, "kustomize", str(place)], capture_output=True, text=True, check=True
    )
    assert build.stderr == ""
    built = {(it["kind"], it["metadata"]["name"]): it for it in yaml.safe_load_all(build.stdout)}
    (name,) = {name for kind, name in built if kind == "ConfigMap"}
    assert built.pop(("ConfigMap", name))["data"] == manifests.settings(project)
    assert built.keys() == objects(project).keys()
    assert (("Deployment", "worker") in built) == jobs
    used = re.findall(r"image: (\S+)\n", build.stdout)
    assert set(used) == {"registry.example.com/team/app:1"}
    assert build.stdout.count(name) == (3 if jobs else 2)
    files = {path.name for path in place.iterdir()} - {"kustomization.yaml", "cluster.sql"}
    assert files == set(manifests.kustomization(project)["resources"])


def test_objects_of_kubernetes_are_valid(known: dict[tuple[str, str], Object]) -> None:
    """By its schema, which knows no other field."""
    kinds = set()
    for (kind, name), it in known.items():
        if it["apiVersion"] not in (OPERATOR, STORE):
            kinds.add(kind)
            validate(it)
            it["spec"]["misspelt"] = True
            with pytest.raises(kubernetes_validate.ValidationError):
                validate(it)
            del it["spec"]["misspelt"], name
    assert kinds == {
        *("Deployment", "HorizontalPodAutoscaler", "Job", "NetworkPolicy", "PodDisruptionBudget"),
        "Service",
    }


def validate(it: Object) -> None:
    kubernetes_validate.validate(it, kubernetes_validate.latest_version(), strict=True)


PROGRAM = """
import * as v1 from "@kubernetes-models/cloudnative-pg/postgresql.cnpg.io/v1";
const given: [v1.ICluster, v1.IPooler, v1.IScheduledBackup] = %s;
new v1.Cluster(given[0]).validate();
new v1.Pooler(given[1]).validate();
new v1.ScheduledBackup(given[2]).validate();
"""


@pytest.fixture(scope="module")
def schemas() -> Path:
    """CloudNativePG's schemas and TypeScript, installed from npm."""
    npm = shutil.which("npm") or pytest.skip("needs npm")
    place = short_directory()
    (place / "package.json").write_text('{"type": "module"}')
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", *SCHEMAS]
    result = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
    if result.returncode:
        pytest.skip(f"npm cannot install the schemas: {result.stderr.strip()[-200:]}")
    return place


def faults(place: Path, given: list[Object]) -> str:
    """What the schemas say: TypeScript of fields and their types, the validators of values."""
    (place / "check.ts").write_text(PROGRAM % json.dumps(given))
    options = "--strict --skipLibCheck --module nodenext --target es2022"
    for command in (f"npx tsc {options} check.ts", "node check.js"):
        result = subprocess.run(command.split(), cwd=place, capture_output=True, text=True)
        if result.returncode:
            return result.stdout + result.stderr
    return ""


def test_objects_of_the_operator_are_valid(
    known: dict[tuple[str, str], Object], schemas: Path
) -> None:
    """By CloudNativePG's schema, and a wrong field or value is refused."""
    given = [it for it in known.values() if it["apiVersion"] == OPERATOR]
    assert faults(schemas, given) == ""
    wrong = json.loads(json.dumps(given))
    wrong[1]["spec"]["pgbouncer"]["misspelt"] = 1
    assert "'\"misspelt\"' does not exist" in faults(schemas, wrong)
    wrong = json.loads(json.dumps(given))
    wrong[0]["spec"]["postgresql"]["synchronous"]["method"] = "some"
    assert "must be equal to one of the allowed values" in faults(schemas, wrong)


def test_backups_name_one_store_and_one_plugin(known: dict[tuple[str, str], Object]) -> None:
    """The schema of the store's plugin is in no package."""
    (plugin,) = known["Cluster", "postgres"]["spec"]["plugins"]
    backup = known["ScheduledBackup", "nightly"]["spec"]
    assert plugin["parameters"]["barmanObjectName"] == "backups"
    assert backup["pluginConfiguration"]["name"] == plugin["name"]
    store = known["ObjectStore", "backups"]
    assert store["apiVersion"] == STORE
    assert store["spec"].keys() == {"retentionPolicy", "configuration"}
    keys = {"destinationPath", "endpointURL", "s3Credentials", "wal"}
    assert store["spec"]["configuration"].keys() == keys


def workloads(known: dict[tuple[str, str], Object]) -> dict[str, Object]:
    return {name: it for (kind, name), it in known.items() if kind in ("Deployment", "Job")}


def test_containers_are_read_only_and_unprivileged(known: dict[tuple[str, str], Object]) -> None:
    found = workloads(known)
    assert found.keys() == {"app", "migrate", "worker"}
    for workload in found.values():
        pod, spec = workload["spec"]["template"]["spec"], container(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert spec["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= spec["resources"]["requests"].keys()
        assert "memory" in spec["resources"]["limits"]


def test_large_uploads_find_a_directory_in_memory(known: dict[tuple[str, str], Object]) -> None:
    """Starlette writes those of more than 1 MiB into a temporary file."""
    (volume,) = workloads(known)["app"]["spec"]["template"]["spec"]["volumes"]
    spec = container(workloads(known)["app"])
    assert spec["volumeMounts"] == [{"name": volume["name"], "mountPath": "/tmp"}]  # noqa: S108
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "128Mi"}
    assert spec["resources"]["limits"]["memory"] == "512Mi"  # which includes them


def test_each_pod_gets_its_own_password_only(known: dict[tuple[str, str], Object]) -> None:
    """The Job that of the owner, the others that of the application."""
    passwords = {("app", "password"), ("app-owner", "password")}
    for name, workload in workloads(known).items():
        used = {(it["name"], it["key"]) for it in references(workload)}
        own = ("app-owner" if name == "migrate" else "app", "password")
        assert used & passwords == {own}


def test_standbys_of_the_page_are_those_of_the_cluster(
    known: dict[tuple[str, str], Object],
) -> None:
    (block,) = readmes.fenced(readmes.read(f"{readmes.PRODUCT}/docs/scale.md"), "yaml")
    (variable,) = yaml.safe_load(block)
    services = [
        f"{known['Cluster', 'postgres']['metadata']['name']}-{kind}" for kind in ("ro", "rw")
    ]
    assert variable["name"] == "DATABASE_URL_READ"
    assert f"$(APP_PASSWORD)@{','.join(services)}:5432/app?" in variable["value"]
    assert "target_session_attrs=prefer-standby" in variable["value"]


def test_pods_end_before_they_are_killed(
    project: Path, known: dict[tuple[str, str], Object]
) -> None:
    """`python -m app` has 3 seconds for open requests, and a job 60."""
    delay = int(manifests.settings(project)["SHUTDOWN_DELAY_SECONDS"])
    for name, seconds in (("app", delay + 3), ("worker", 60)):
        pod = workloads(known)[name]["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > seconds
    readiness = container(workloads(known)["app"])["readinessProbe"]
    assert readiness["timeoutSeconds"] > 5  # the limit of /health/ready itself


def test_selectors_match_the_pods(known: dict[tuple[str, str], Object]) -> None:
    for workload in workloads(known).values():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        if workload["kind"] == "Deployment":
            assert workload["spec"]["selector"]["matchLabels"] == labels
    labels = {"app.kubernetes.io/name": "app"}
    assert known["Service", "app"]["spec"]["selector"] == labels
    assert known["PodDisruptionBudget", "app"]["spec"]["selector"]["matchLabels"] == labels
    assert known["HorizontalPodAutoscaler", "app"]["spec"]["scaleTargetRef"]["name"] == "app"


def test_network_admits_who_connects(known: dict[tuple[str, str], Object]) -> None:
    """The hosts of the URLs, and nobody else."""
    policies = {name: it["spec"] for (kind, name), it in known.items() if kind == "NetworkPolicy"}
    closed = policies["clients"]
    assert "ingress" not in closed
    assert closed["podSelector"]["matchExpressions"][0]["values"] == ["migrate", "worker"]
    (rule,) = policies["pooler"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "app"}}}]
    direct = policies["postgres"]["ingress"][0]["from"]
    assert {"podSelector": {"matchLabels": {"cnpg.io/poolerName": "pooler"}}} in direct
    (own,) = [it["podSelector"]["matchExpressions"] for it in direct if "Expr" in str(it)]
    assert own[0]["values"] == ["app", "migrate", "worker"]


@pytest.mark.parametrize("jobs", [True, False])
def test_connections_stay_below_the_limits(bake: Bake, jobs: bool) -> None:
    """And docs/scale.md has these numbers."""
    project = bake(kubernetes=True, jobs=jobs).path
    page = (project / "docs/scale.md").read_text()
    for title, terms, total, limit in manifests.sums(project):
        assert total <= limit, f"{title}: {terms} = {total}, more than {limit}"
        assert f"| {terms} | {total} | {limit} |" in page, f"{title}: {terms} = {total} of {limit}"


KUBECTL = """#!/bin/sh
printf '%s\\n' "$*" >> "$LOG"
"""


def test_commands_of_the_page_create_what_the_manifests_refer_to(bake: Bake) -> None:
    """Carried out with a kubectl that only writes down how it was called."""
    project, place = bake(kubernetes=True).path, short_directory()
    (place / "kubectl").write_text(KUBECTL)
    (place / "kubectl").chmod(0o755)
    log = place / "log"
    path = {"PATH": f"{place}:{os.environ['PATH']}", "LOG": str(log)}
    (first,) = readmes.take(PAGE, "First time")
    (release,) = readmes.take(PAGE, "Release and rollback")
    for block in (first, release):
        env = path | {"KEY_ID": "id", "KEY": "key"}
        subprocess.run(["sh", "-euc", block], cwd=project, env=env, check=True)
    calls = log.read_text().splitlines()
    created = set()
    for call in (call for call in calls if call.startswith("create")):
        name = re.sub("create (secret generic|configmap) ", "", call).split()[0]
        keys = dict(re.findall(r"from-literal=([\w-]+)=(\S+)", call))
        created |= {(name, key) for key in keys}
        assert keys.get("username", name).replace("_", "-") == name
        assert re.fullmatch("[0-9a-f]{48}", keys.get("password", "0" * 48))
        for file in re.findall(r"from-file=(\S+)", call):
            assert (project / file).is_file()
            created.add((name, file.split("/")[-1]))
    used = {(it["name"], it["key"]) for it in references(list(objects(project).values()))}
    names = {("app", "username"), ("app-owner", "username")}  # the operator reads them
    assert used | names == created
    assert calls[-4:-2] == ["delete job migrate --ignore-not-found", "apply -k deploy/kubernetes"]
    with_mails = bake(kubernetes=True, auth="accounts").path / "docs/kubernetes.md"
    assert 'create secret generic mail --from-literal=url="$MAIL_URL"\n' in with_mails.read_text()


def references(value: object) -> Iterator[dict[str, str]]:
    """Each {name: …, key: …} in objects."""
    if isinstance(value, dict):
        if value.keys() == {"name", "key"}:
            yield value
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


SECRETS = {
    ("app", "password"): "app0password",
    ("app-owner", "password"): "owner0password",
    ("mail", "url"): "console://",
}


@pytest.mark.parametrize("auth", choices()["auth"])
def test_settings_without_a_default_reach_the_pods(bake: Bake, auth: str) -> None:
    """They are set in .env.example, with those of other containers."""
    project = bake(kubernetes=True, jobs=True, auth=auth).path
    required = dotenv_values(project / ".env.example").keys()
    others = {"APP_PASSWORD", "APP_OWNER_PASSWORD", "DATABASE_URL_SYNC", "SHUTDOWN_DELAY_SECONDS"}
    assert {"MAIL_URL"} <= required or auth != "accounts"
    for name in ("app", "worker"):
        workload = workloads(objects(project))[name]
        assert required - others <= environment(project, workload, SECRETS).keys()


@dataclass
class Pods:
    """The pods of the manifests, on a PostgreSQL and a PgBouncer of the test."""

    project: Path
    place: Path
    port: int
    pooler: int

    @property
    def known(self) -> dict[tuple[str, str], Object]:
        return objects(self.project)

    def environment(self, name: str) -> dict[str, str]:
        found = environment(self.project, workloads(self.known)[name], SECRETS)
        local = {"@postgres-rw:5432/": self.port, "@pooler:5432/": self.pooler}
        for host, port in local.items():
            found = {k: v.replace(host, f"@127.0.0.1:{port}/") for k, v in found.items()}
        assert not [value for value in found.values() if "5432" in value]
        return found

    def start(self, image: Image, name: str, port: str = "8000") -> "subprocess.Popen[str]":
        """Start a container, by its own command or by that of the image."""
        command = container(workloads(self.known)[name]).get("command", image.command)
        words = [port if word == "8000" else word for word in command]
        return image.start(words, self.environment(name))

    def psql(self, script: str, database: str = "app") -> str:
        return psql(self.place, self.port, f"\\c {database}\n{script}")

    @contextmanager
    def served(self, image: Image) -> Iterator[tuple["subprocess.Popen[str]", httpx.Client]]:
        port = str(free_port())
        process = self.start(image, "app", port)
        try:
            assert process.stdout
            for line in process.stdout:
                if "Uvicorn running" in line:
                    break
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield process, client
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def bootstrap(pods: Pods) -> None:
    """Create the database as CloudNativePG does: the owner, the SQL of the ConfigMap, roles."""
    spec = pods.known["Cluster", "postgres"]["spec"]
    initdb, project = spec["bootstrap"]["initdb"], pods.project
    psql(pods.place, pods.port, f"CREATE ROLE {initdb['owner']} LOGIN")
    psql(pods.place, pods.port, f"CREATE DATABASE {initdb['database']} OWNER {initdb['owner']}")
    files = {"roles.sql": project / "roles.sql"}
    files["cluster.sql"] = manifests.directory(project) / "cluster.sql"
    for reference in initdb["postInitApplicationSQLRefs"]["configMapRefs"]:
        one_query(pods, files[reference["key"]].read_text(), initdb["database"])
    owner = SECRETS[initdb["secret"]["name"], "password"]
    psql(pods.place, pods.port, f"ALTER ROLE {initdb['owner']} PASSWORD '{owner}'")
    (role,) = spec["managed"]["roles"]
    password = SECRETS[role["passwordSecret"]["name"], "password"]
    login = "LOGIN" if role["login"] else "NOLOGIN"
    psql(pods.place, pods.port, f"ALTER ROLE {role['name']} {login} PASSWORD '{password}'")


def one_query(pods: Pods, script: str, database: str) -> None:
    """Run a script as the operator does: it sends all of it as one query."""
    connection = ["--host", str(pods.place), "--port", str(pods.port), "--username", "postgres"]
    run_as_account("psql", "-Xq", "-v", "ON_ERROR_STOP=1", *connection, "-c", script, database)


ENCRYPTED = """SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
    WHERE client_port > 0"""
LISTENING = """SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'worker, listening'"""
POOLER = """
auth_type = scram-sha-256
auth_file = {place}/users.txt
client_tls_sslmode = allow
client_tls_key_file = {place}/server.key
client_tls_cert_file = {place}/server.crt
server_tls_sslmode = require
pool_mode = {mode}
{parameters}
"""


@pytest.fixture(scope="module")
def image(project: Path, uv_cache: str) -> Image:
    copy = Project(project).copy(short_directory()).path
    directory = short_directory()
    directory.chmod(0o755)
    image = Image(copy, directory / "root", uv_cache)
    image.build()
    return image


@pytest.fixture(scope="module")
def pods(project: Path) -> Iterator[Pods]:
    """A server and a pooler that ask for passwords and speak TLS, as those of the operator."""
    place = short_directory()
    write_certificates(place, "app")
    access = "local all all trust\nhostssl all all all scram-sha-256\n"
    tls = {"ssl": "on"}
    tls |= {
        f"ssl_{kind}_file": f"{place}/server.{kind[:3].replace('cer', 'crt')}"
        for kind in ("cert", "key")
    }
    pooler = objects(project)["Pooler", "pooler"]["spec"]["pgbouncer"]
    with ExitStack() as stack:
        port = stack.enter_context(postgresql(place, access, tls))
        pods = Pods(project, place, port, 0)
        bootstrap(pods)
        parameters = "\n".join(f"{k} = {v}" for k, v in pooler["parameters"].items())
        (place / "users.txt").write_text(f'"app" "{SECRETS["app", "password"]}"\n')
        text = POOLER.format(place=place, mode=pooler["poolMode"], parameters=parameters)
        size = int(pooler["parameters"]["default_pool_size"])
        pods.pooler = stack.enter_context(pgbouncer(place, port, size, text, user=""))
        yield pods


def probe(pods: Pods, client: httpx.Client, name: str) -> int:
    """The answer to a probe of the manifest."""
    spec = container(workloads(pods.known)["app"])
    assert spec["ports"] == [{"name": spec[name]["httpGet"]["port"], "containerPort": 8000}]
    return client.get(spec[name]["httpGet"]["path"]).status_code


def test_pods_are_carried_out(pods: Pods, image: Image) -> None:
    """The application waits for the Job, then serves through the pooler until SIGTERM."""
    with pods.served(image) as (server, client):
        assert probe(pods, client, "livenessProbe") == 200
        assert probe(pods, client, "readinessProbe") == 503
        finish(pods.start(image, "migrate"))
        assert probe(pods, client, "readinessProbe") == 200
        users = "SELECT DISTINCT usename FROM pg_stat_activity WHERE client_port > 0"
        assert pods.psql(users) == "app"
        assert pods.psql(ENCRYPTED) == "t"
        worker = pods.start(image, "worker")
        try:
            wait_until(lambda: pods.psql(LISTENING) == "1")
            for process in (worker, server):
                process.send_signal(signal.SIGTERM)
            wait_until(lambda: probe(pods, client, "readinessProbe") == 503)
            assert probe(pods, client, "livenessProbe") == 200  # during the delay
            server.send_signal(signal.SIGTERM)  # which skips the rest of it
            finish(worker)
        finally:
            if worker.poll() is None:
                worker.kill()
        pod = workloads(pods.known)["app"]["spec"]["template"]["spec"]
        output, _ = server.communicate(timeout=pod["terminationGracePeriodSeconds"])
        assert "Application shutdown complete" in output
        assert server.returncode in (0, -signal.SIGTERM)


def test_cluster_has_the_roles_and_their_limits(pods: Pods) -> None:
    limits = pods.psql("SELECT unnest(setconfig) FROM pg_db_role_setting ORDER BY 1").split("\n")
    assert limits == ["idle_in_transaction_session_timeout=60s", "lock_timeout=5s"]
    assert pods.psql("SELECT has_schema_privilege('app', 'public', 'CREATE')") == "f"
    # The operator's role for replicas, which it creates later and which runs pg_rewind.
    pods.psql("CREATE ROLE streaming_replica LOGIN REPLICATION")
    for database in ("postgres", "app"):
        right = f"SELECT has_database_privilege('streaming_replica', '{database}', 'CONNECT')"
        assert pods.psql(right) == ("t" if database == "postgres" else "f")
