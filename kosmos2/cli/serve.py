"""`serve`: the model behind an API."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from kosmos2.cli.asking import ModelChoice
from kosmos2.cli.console import note
from kosmos2.cli.options import Device, DeviceOption, Dtype, DtypeOption, ModelOption, SetOption
from kosmos2.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from kosmos2.server import Limits
    from kosmos2.server.replicas import Plan

HostOption = Annotated[
    str, typer.Option("--host", help="127.0.0.1: this machine alone; 0.0.0.0: whoever reaches it.")
]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")]
KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--api-key", help="A key that requests must bring. Repeatable; also KOSMOS2_API_KEYS=a,b."
    ),
]
UrlsOption = Annotated[
    bool, typer.Option("--allow-urls", help="Fetch pictures by URL, from public addresses only.")
]
WaitingOption = Annotated[
    int, typer.Option("--max-waiting", min=1, help="Requests at a time; one more gets 503.")
]
BodyOption = Annotated[int, typer.Option("--max-mb", min=1, help="MiB of a request.")]
PixelsOption = Annotated[
    float, typer.Option("--max-megapixels", min=0.01, help="Of a picture, in millions.")
]
TokensOption = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Of an answer.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds for a request, waiting included.")
]
ReplicasOption = Annotated[
    int,
    typer.Option(
        "--replicas",
        min=1,
        help="Processes with a model each, behind one port, by Ray Serve; limits are of each.",
    ),
]
ROWS = "batch_size=16"
"""Rows that are answered at a time, where --set says nothing else."""
ENVIRONMENT = {
    # Idle processor threads of torch otherwise spin for milliseconds on cores that requests need.
    "GOMP_SPINCOUNT": "10000",
    # For each number of tokens that are read at once oneDNN keeps half a megabyte, 1,024 times.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
}
"""What torch reads when it is loaded, where the user says nothing else."""


def serve(
    model: ModelOption = "embedded",
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    api_key: KeyOption = None,
    allow_urls: UrlsOption = False,
    max_waiting: WaitingOption = 64,
    max_mb: BodyOption = 32,
    max_megapixels: PixelsOption = 50.0,
    max_new_tokens: TokensOption = 1024,
    timeout: TimeoutOption = 120.0,
    replicas: ReplicasOption = 1,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    overrides: SetOption = None,
) -> None:
    """Answer over HTTP: typed endpoints, and those that OpenAI's clients speak. Docs at /docs.

    Example:  kosmos2 serve --port 8000
    """
    environment = {name: os.environ.get(name, usual) for name, usual in ENVIRONMENT.items()}
    os.environ.update(environment)
    _check_extra()
    from kosmos2.server import Limits

    keys = _keys(api_key)
    limits = Limits(
        max_body=max_mb << 20,
        max_pixels=int(max_megapixels * 1_000_000),
        max_new_tokens=max_new_tokens,
        max_waiting=max_waiting,
        seconds=timeout,
        allow_urls=allow_urls,
        api_keys=keys,
    )
    choice = ModelChoice(model, device, dtype, [ROWS, *(overrides or ())])
    if replicas > 1:
        from kosmos2.server.replicas import Plan

        _serve_many(
            choice, limits, Plan(count=replicas, host=host, port=port, environment=environment)
        )
    else:
        _serve_one(choice, limits, host, port)


def _serve_one(choice: ModelChoice, limits: Limits, host: str, port: int) -> None:
    import uvicorn

    from kosmos2.server import create_app
    from kosmos2.server.memory import give_back_pictures

    give_back_pictures()
    loaded = choice.load()
    _tell(loaded.name, host, port, limits.api_keys)
    uvicorn.run(
        create_app(loaded, limits),
        host=host,
        port=port,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=int(limits.seconds) + 1,
    )


def _serve_many(choice: ModelChoice, limits: Limits, plan: Plan) -> None:
    from kosmos2.server.replicas import replicated, wait_for_the_end

    choice.precision()  # says what is wrong with the model or the device before Ray starts
    with replicated(choice.load, limits, plan):
        _tell(f"{choice.name} {plan.count} times", plan.host, plan.port, limits.api_keys)
        wait_for_the_end()


def _check_extra() -> None:
    try:
        for name in ("uvicorn", "kosmos2.server"):
            import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f'a server needs {error.name}: pip install "kosmos2[serve]"'
        ) from None


def _tell(name: str, host: str, port: int, keys: tuple[str, ...]) -> None:
    if host not in ("127.0.0.1", "localhost", "::1") and not keys:
        note(f"warning: whoever reaches {host} can ask, for there is no --api-key")
    note(f"serving {name}: http://{host}:{port}/docs shows what can be asked")


def _keys(given: list[str] | None) -> tuple[str, ...]:
    told = os.environ.get("KOSMOS2_API_KEYS", "")
    keys = (*(given or ()), *(key.strip() for key in told.split(",") if key.strip()))
    if any(not key.strip() for key in keys):
        raise ConfigError("an --api-key must not be empty")
    return keys
