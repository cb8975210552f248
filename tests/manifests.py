"""The manifests of `deploy/kubernetes/`: their objects, and the sums of their connections."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Object = dict[str, Any]

PROBE = 1  # connection of each process of the application, beside its pool
LISTENER = 1  # of each worker, likewise
MIGRATION = 2  # connections of `alembic upgrade head`
RESERVED = 20  # for the superuser, the operator, its metrics, and you


def directory(project: Path) -> Path:
    return project / "deploy" / "kubernetes"


def kustomization(project: Path) -> Object:
    content: Object = yaml.safe_load((directory(project) / "kustomization.yaml").read_text())
    return content


def objects(project: Path) -> dict[tuple[str, str], Object]:
    """Each object that the kustomization lists, by kind and name."""
    files = [directory(project) / name for name in kustomization(project)["resources"]]
    found = [it for file in files for it in yaml.safe_load_all(file.read_text())]
    return {(it["kind"], it["metadata"]["name"]): it for it in found}


def settings(project: Path) -> dict[str, str]:
    """The values of the ConfigMap `settings`."""
    (generator,) = kustomization(project)["configMapGenerator"]
    return dict(literal.split("=", 1) for literal in generator["literals"])


def container(workload: Object) -> Object:
    (found,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment(project: Path, workload: Object, secrets: dict[tuple[str, str], str]) -> Object:
    """The variables of a container. Kubernetes replaces `$(NAME)` by those before it."""
    spec = container(workload)
    values = settings(project) if "envFrom" in spec else {}
    for variable in spec["env"]:
        if source := variable.get("valueFrom", {}).get("secretKeyRef"):
            values[variable["name"]] = secrets[source["name"], source["key"]]
        else:
            text = re.sub(r"\$\((\w+)\)", lambda name: values[name[1]], variable["value"])
            values[variable["name"]] = text
    return values


class Sum(NamedTuple):
    """Connections at the worst moment, of a rollout at the highest load, and their limit."""

    title: str
    terms: str
    total: int
    limit: int


def sums(project: Path) -> list[Sum]:
    """Add up the connections to one pooler, and to the primary, from the manifests' numbers."""
    known, values = objects(project), settings(project)
    deployment, pooler = known["Deployment", "app"], known["Pooler", "pooler"]["spec"]
    surge = deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    replicas = known["HorizontalPodAutoscaler", "app"]["spec"]["maxReplicas"] + surge
    processes, pool = int(values["WEB_CONCURRENCY"]), int(values["DATABASE_POOL_SIZE"])
    parameters = pooler["pgbouncer"]["parameters"]
    size, poolers = int(parameters["default_pool_size"]), pooler["instances"]
    workers, worker_pool = count_workers(known, pool)
    server = known["Cluster", "postgres"]["spec"]["postgresql"]["parameters"]["max_connections"]
    # A pooler has a second pool, for its query of passwords.
    pooled, working = poolers * 2 * size, workers * (worker_pool + LISTENER)
    reading = replicas * processes * pool
    jobs = f" + {workers} workers x ({worker_pool} + {LISTENER})" if workers else ""
    direct = f"{poolers} poolers x 2 x {size}{jobs} + migration {MIGRATION} + reserved {RESERVED}"
    total = pooled + working + MIGRATION + RESERVED
    read = f"{replicas} replicas x {processes} processes x {pool}"
    return [
        Sum(
            "clients of one pooler, if the others are down",
            f"{replicas} replicas x {processes} processes x ({pool} + probe {PROBE})",
            replicas * processes * (pool + PROBE),
            int(parameters["max_client_conn"]),
        ),
        Sum("connections of the primary", direct, total, int(server)),
        Sum(
            "the same with DATABASE_URL_READ, if every standby is down",
            f"{direct} + {read}",
            total + reading,
            int(server),
        ),
    ]


def count_workers(known: dict[tuple[str, str], Object], pool: int) -> tuple[int, int]:
    """The workers during a rollout, and the pool of each."""
    if ("Deployment", "worker") not in known:
        return 0, 0
    worker = known["Deployment", "worker"]
    own = {it["name"]: it.get("value") for it in container(worker)["env"]}
    surge = worker["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    return worker["spec"]["replicas"] + surge, int(own.get("DATABASE_POOL_SIZE") or pool)
