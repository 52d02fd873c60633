"""`native`: the optional C kernels for int8 and int4."""

import typer

from kosmos2.cli.console import say

native = typer.Typer(
    help="The optional C kernels that make int8 and int4 faster; nothing needs them.",
    epilog="Example:  kosmos2 native build",
    no_args_is_help=True,
)


@native.command("build")
def build() -> None:
    """Compile the kernels with this machine's C compiler, once; they are used from then on.

    KOSMOS2_NATIVE=off in the environment turns them off.

    Example:  kosmos2 native build
    """
    from kosmos2.kernels import native as kernels

    say(f"built: {kernels.build()}")
    say(f"in use: {kernels.status()}")


@native.command("status")
def status() -> None:
    """Tell which kernels are in use.

    Example:  kosmos2 native status
    """
    from kosmos2.kernels import native as kernels

    say(kernels.status())
