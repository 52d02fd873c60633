"""`grit download`: pictures of a table of URLs, politely."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from kosmos2.cli.console import bar, say
from kosmos2.cli.jobs import AddressOption, Driver, DriverOption, FreshOption, Watch, end
from kosmos2.fetch import USER_AGENT, Limits

if TYPE_CHECKING:
    from kosmos2.grit.download import Census, Download
    from kosmos2.grit.downloader import Columns


TableArgument = Annotated[
    Path,
    typer.Argument(
        metavar="TABLE",
        help="GRIT as it was released, or any table with a column of URLs: .parquet, .jsonl, "
        ".csv, or a folder of the first two.",
        show_default=False,
    ),
]
OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="The folder of tars to write.")]
SideOption = Annotated[
    int | None,
    typer.Option("--longest-side", min=1, help="Shrink larger pictures to so many pixels."),
]
UrlOption = Annotated[
    str | None, typer.Option("--url-column", help="Where the URLs are; usual names are known.")
]
CaptionOption = Annotated[
    str | None, typer.Option("--caption-column", help="Where the captions are.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="The first so many rows.")]
SizeOption = Annotated[int, typer.Option("--shard-size", min=1, help="Rows of a tar.")]
ThreadsOption = Annotated[
    int, typer.Option("--threads", min=1, help="Downloads at a time, of each worker.")
]
HostOption = Annotated[
    int, typer.Option("--per-host", min=1, help="Requests at a time to one host, in all.")
]
DelayOption = Annotated[
    float, typer.Option("--delay", min=0, help="Seconds between two requests to a host.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", help="Seconds for one picture, redirects included.")
]
BytesOption = Annotated[int, typer.Option("--max-mb", min=1, help="MiB of the largest file.")]
RetriesOption = Annotated[
    int, typer.Option("--retries", min=0, help="After 5xx, 429, timeouts, lost connections.")
]
AgentOption = Annotated[
    str, typer.Option("--user-agent", help="Who asks: best with an address to complain to.")
]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, help="Processes.")]
PrivateOption = Annotated[
    bool, typer.Option("--allow-private", help="Also this machine and its own network.")
]


def download(
    table: TableArgument,
    out: OutArgument,
    longest_side: SideOption = None,
    url_column: UrlOption = None,
    caption_column: CaptionOption = None,
    limit: LimitOption = None,
    shard_size: SizeOption = 5_000,
    threads: ThreadsOption = 64,
    per_host: HostOption = 2,
    delay: DelayOption = 0.1,
    timeout: TimeoutOption = 30.0,
    max_mb: BytesOption = 32,
    retries: RetriesOption = 2,
    user_agent: AgentOption = USER_AGENT,
    driver: DriverOption = Driver.LOCAL,
    workers: WorkersOption = 1,
    address: AddressOption = None,
    allow_private: PrivateOption = False,
    fresh: FreshOption = False,
) -> None:
    """Download pictures into tars, and count what became of the links.

    robots.txt and X-Robots-Tag are honoured. The same command goes on where it was stopped.

    Example:  kosmos2 grit download grit-20m/ pictures --longest-side 640
    """
    from kosmos2.grit.download import Download
    from kosmos2.grit.polite import Politeness
    from kosmos2.shards import driver_named

    limits = Limits(
        max_bytes=max_mb << 20, seconds=timeout, allow_private=allow_private, user_agent=user_agent
    )
    job = Download(
        table=table,
        out=out,
        driver=driver_named(driver, workers=workers, gpus=0, address=address),
        politeness=Politeness(limits=limits, per_host=per_host, delay=delay, retries=retries),
        columns=_columns(url_column, caption_column),
        longest_side=longest_side,
        threads=threads,
        limit=limit,
        unit=shard_size,
        anew=fresh,
    )
    _run(job)


def _columns(url: str | None, caption: str | None) -> "Columns":
    from kosmos2.grit.downloader import Columns

    usual = Columns()
    return Columns(
        url=(url,) if url else usual.url, caption=(caption,) if caption else usual.caption
    )


def _run(job: "Download") -> None:
    from kosmos2.grit.download import download as have

    with bar("downloading", job.limit) as progress:
        census = have(job, Watch(progress, "downloading", job.limit).saw)
    _show(census, job.out)
    end(census.quarantined)


def _show(census: "Census", out: Path) -> None:
    table = Table("status", "links", "share")
    for status, count in census.statuses.items():
        table.add_row(status, f"{count:,}", f"{count / census.rows:.1%}")
    Console().print(table)
    say(
        f"written: {out} ({census.successes:,} of {census.rows:,} pictures, "
        f"{census.bytes / 1e6:,.1f} MB)"
    )
