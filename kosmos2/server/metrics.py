"""Counts and times for Prometheus. One registry for each application, none for the process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kosmos2.server.desk import Desk

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """What the server counts."""

    def __init__(self, desk: Desk) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "kosmos2_requests", "Requests by path and status", ["path", "status"],
            registry=self._registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "kosmos2_request_seconds", "From a request to the end of its answer", ["path"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        live = Gauge(
            "kosmos2_live_requests", "Requests worked at or waiting", registry=self._registry
        )
        live.set_function(lambda: desk.live)

    def text(self) -> bytes:
        """Return all of it in the format that Prometheus reads."""
        return generate_latest(self._registry)
