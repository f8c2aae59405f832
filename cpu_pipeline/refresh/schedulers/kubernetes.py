"""Kubernetes: one CronJob per job, over a claim that holds the project's clone; nothing runs as root."""

from __future__ import annotations

from typing import Any

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.refresh.schedule import REFRESH, Order, ScheduledJob
from cpu_pipeline.refresh.schedulers._yaml import dump, note

PROJECT, STORE, HOME, CLAIM, SECRET = "/project", "/store", "/home/cpu-pipeline", "cpu-pipeline", "cpu-pipeline"
USER = 1000
CPUS, MEMORY = 2, "8Gi"
HEAD = f"""\
Keeps artifacts fresh. Made by `cpu-pipeline schedule --for kubernetes`: make it again when a schedule changes.
kubectl apply -f this file, in a namespace that has
- a PersistentVolumeClaim `{CLAIM}` that user {USER} may write, with a clone of the project at its root
  (recipes and locks move there, and artifacts/ stays there);
- if needed, a Secret `{SECRET}` with HF_TOKEN and the credentials of a remote store, as environment variables."""


def files(order: Order) -> dict[str, str]:
    """Return the CronJobs of an order.

    Raises:
        RecipeError: no image is named.
    """
    if order.image is None:
        raise RecipeError("--for kubernetes: name the container image that holds cpu-pipeline with --image")
    return {f"{REFRESH}.yaml": dump([_cronjob(order, job) for job in order.jobs], HEAD)}


def _cronjob(order: Order, job: ScheduledJob) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "cpu-pipeline", "app.kubernetes.io/component": "refresh"}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": job.name, "labels": labels},
        "spec": {
            **note(job.moved),
            "schedule": job.cron.text,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            **note("a start that was missed by more than this many seconds is left to the next one"),
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "spec": {
                    **note("a failed gate fails again: the next scheduled refresh is the retry"),
                    "backoffLimit": 0,
                    "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(order, job)},
                }
            },
        },
    }


def _pod(order: Order, job: ScheduledJob) -> dict[str, Any]:
    claim = {"name": "project", "persistentVolumeClaim": {"claimName": CLAIM}}
    scratch = ["tmp", "home"] if order.store_remote is None else ["tmp", "home", "store"]
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(order, job)],
        "volumes": [claim, *({"name": name, "emptyDir": {}} for name in scratch)],
    }


def _container(order: Order, job: ScheduledJob) -> dict[str, Any]:
    script = "\n".join([*order.on("cpu-pipeline").script(job, check=True), 'exit "${code:-0}"'])
    resources = {"cpu": str(job.threads or CPUS), "memory": MEMORY}
    store = f"{PROJECT}/.cpu-pipeline" if order.store_remote is None else STORE
    places = {"project": PROJECT, "tmp": "/tmp", "home": HOME}
    if order.store_remote is not None:
        places["store"] = STORE
    return {
        "name": "refresh",
        "image": order.image,
        "workingDir": PROJECT,
        "command": ["/bin/sh", "-c"],
        **note(
            "status comes last, as a dead man's switch: the job fails when a version is too old, whatever the reason"
        ),
        "args": [_escape(script)],
        "env": [
            {"name": "HOME", "value": HOME},
            {"name": "USER", "value": "cpu-pipeline"},
            {"name": "CPU_PIPELINE_STORE", "value": store},
        ],
        "envFrom": [{"secretRef": {"name": SECRET, "optional": True}}],
        **note("requests that equal limits, and whole CPUs: the static CPU manager then pins them, and latencies hold"),
        "resources": {"requests": resources, "limits": dict(resources)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in places.items()],
    }


def _escape(text: str) -> str:
    """Keep `$(NAME)` in a word from being replaced by Kubernetes before the shell sees it."""
    return text.replace("$(", "$$(")
