"""The same application in several processes behind one address, by Ray Serve."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kosmos2.api import Kosmos2
from kosmos2.errors import ConfigError, MissingExtraError, one_line
from kosmos2.server.app import create_app
from kosmos2.server.limits import Limits
from kosmos2.server.memory import give_back_pictures
from kosmos2.shards.pool import allowed_cores

if TYPE_CHECKING:
    from types import ModuleType

    from fastapi import FastAPI

NAME = "kosmos2"
CARE = 16
"""Requests that a replica takes beside those that its desk may let in: for health, and refusals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many replicas there are, where they are reached, and with what environment they run.

    Ray starts on this machine, unless RAY_ADDRESS names a cluster.
    """

    count: int
    host: str
    port: int
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.port:
            raise ConfigError("several replicas need a port by number, not 0")


@contextmanager
def replicated(load: Callable[[], Kosmos2], limits: Limits, plan: Plan) -> Iterator[None]:
    """Serve meanwhile. Limits are those of each replica; who has been let in is answered."""
    ray, serve = _ray()
    cores = max(allowed_cores(), plan.count)
    address = os.environ.get("RAY_ADDRESS", "local")
    told = {"num_cpus": cores, "include_dashboard": False} if address == "local" else {}
    ray.init(address=address, logging_level="ERROR", log_to_driver=False, **told)
    try:
        try:
            with suppress(TimeoutError):  # after a minute; on a busy machine it comes later
                serve.start(
                    proxy_location="HeadOnly",
                    http_options={"host": plan.host, "port": plan.port},
                    logging_config={"log_level": "ERROR", "enable_access_log": False},
                )
            serve.run(_deployment(ray, serve, load, limits, plan), name=NAME, route_prefix="/")
        except (RuntimeError, ray.exceptions.RayError) as error:
            raise ConfigError(f"the replicas do not start: {one_line(error)}") from error
        try:
            yield
        finally:
            serve.delete(NAME)  # each replica answers whom it has let in, then ends
    finally:
        ray.shutdown()


def wait_for_the_end() -> None:
    """Return when the process is told to end (SIGTERM) or somebody presses Ctrl-C."""
    told = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: told.set())
    told.wait()


def _deployment(
    ray: ModuleType,
    serve: ModuleType,
    load: Callable[[], Kosmos2],
    limits: Limits,
    plan: Plan,
) -> Any:  # noqa: ANN401 - Ray's own
    def build() -> FastAPI:
        give_back_pictures()
        return create_app(load(), limits)

    share = _share(ray, plan.count)
    threads = {"KOSMOS2_THREADS": str(math.ceil(share["num_cpus"]))}
    return (
        serve.deployment(serve.ingress(build)())
        .options(
            name=NAME,
            num_replicas=plan.count,
            # The desk refuses whom there is no room for, with the same words as without Ray.
            max_ongoing_requests=limits.max_waiting + CARE,
            graceful_shutdown_timeout_s=limits.seconds + 1,
            ray_actor_options={
                **share,
                "runtime_env": {"env_vars": {**threads, **plan.environment}},
            },
        )
        .bind()
    )


def _share(ray: ModuleType, count: int) -> dict[str, float]:
    """Return the cores and GPUs of one replica: equal shares of what is there."""
    there = ray.cluster_resources()
    gpus = there.get("GPU", 0)
    return {
        "num_cpus": max(there.get("CPU", 1) / count, 0.01),
        "num_gpus": min(1.0, math.floor(100 * gpus / count) / 100),
    }


def _ray() -> tuple[ModuleType, ModuleType]:
    # Before the import. Nothing is sent to anyone; and a machine may be slow to start a process.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise MissingExtraError(
            f"several replicas need Ray Serve ({one_line(error)}): "
            'pip install "kosmos2[serve,cluster]"'
        ) from error
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    return ray, serve
