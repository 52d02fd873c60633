"""Requests made from the server's own description: it never makes a mistake on any of them."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from kosmos2.api import Kosmos2
from kosmos2.server import Limits, create_app

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def described(served: Kosmos2) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(served, Limits()))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/caption", "/v1/ground", "/v1/find", "/v1/describe", "/v1/ask", "/v1/chat/completions",
        "/v1/models", "/health", "/ready", "/metrics",
    ],
)  # fmt: skip
def test_no_request_finds_a_mistake_or_an_answer_that_is_not_described(
    described: schemathesis.BaseSchema, path: str
) -> None:
    methods = described[path]
    (operation,) = methods.values()

    @given(case=operation.as_strategy())
    @settings(
        max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    def put(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    put()


def test_every_path_is_put_to_the_test(described: schemathesis.BaseSchema) -> None:
    assert len(described) == 10
