"""`docs/results/serving.md` from the numbers of `benchmarks.serving`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

REQUIRED = 3.0
"""Times the throughput of one client that sixteen are to get."""

Round = dict[str, Any]


def page_of(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    told = results["stamp"]
    (_, one), (many, crowd) = sorted(results["lanes"].items(), key=lambda lane: int(lane[0]))
    ratio = median(crowd, "rate") / median(one, "rate")
    verdict = "met" if ratio >= REQUIRED else "not met"
    lanes = (("one client", one), (f"{many} clients", crowd))
    return f"""# The server under load, measured

`kosmos2 serve` with the embedded model ({results["precision"]}): captions, detailed captions,
phrases, boxes and questions in equal parts about {results["pictures"]} different pictures; each
client asks again when it is answered. Every answer is held against the offline one.

```bash
{results["command"]}
```

- {told["processor"]}, {told["cores"]} cores, {told["memory_gb"]} GB; torch {told["torch"]},
  Python {told["python"]}; commit {told["commit"]}, {told["date"]}

|  | requests/s | p50, ms | p95, ms | p99, ms | answers | wrong | refused |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(_answered(name, lane) for name, lane in lanes)}

Medians of {len(crowd)} rounds that alternate. **{many} clients get {ratio:.2f} times the
throughput of one** (required: {REQUIRED:g}; {verdict}). Offline, with no server around it
and one request at a time, the model answers {results["offline"]["rate"]:.1f} requests a second.

## Where the processors go

Cores that were busy, and what an answer costs the server:

|  | the server | the clients | others | idle | server, ms of a core an answer |
| --- | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(_busy(name, lane, told["cores"]) for name, lane in lanes)}

Clients run on the same cores. What rows share in a step, and pictures in an encoding, makes an
answer cheaper where many ask; the rest of the gain is cores that one client leaves idle. A client
alone already keeps a core busy. What many leave idle waits for Python: the thread of rows, that of
pictures, HTTP and the decoding of files share one interpreter (seen with py-spy).

## Memory

{_memory(results["memory"])}
"""


def _answered(name: str, lane: Sequence[Round]) -> str:
    return (
        f"| {name} | {median(lane, 'rate'):.1f} | {1000 * median(lane, 'p50'):.0f} | "
        f"{1000 * median(lane, 'p95'):.0f} | {1000 * median(lane, 'p99'):.0f} | "
        f"{sum(each['answers'] for each in lane):,} | {sum(each['wrong'] for each in lane)} | "
        f"{sum(sum(each['refused'].values()) for each in lane)} |"
    )


def _busy(name: str, lane: Sequence[Round], cores: int) -> str:
    server, clients, others = (
        median(lane, f"{who}_cores") for who in ("server", "client", "other")
    )
    idle = max(0.0, cores - server - clients - others)
    cost = statistics.median(1000 * each["server_cores"] / each["rate"] for each in lane)
    return f"| {name} | {server:.2f} | {clients:.2f} | {others:.2f} | {idle:.2f} | {cost:.1f} |"


def _memory(seen: Sequence[Sequence[float]]) -> str:
    """Return the resident memory at about ten times, and what it comes to."""
    if not seen:
        return "Too short a run to tell."
    every = max(1, len(seen) // 10)
    shown = [*seen[::every][:10], seen[-1]]
    rows = "\n".join(f"| {seconds:.0f} | {megabytes:.0f} |" for seconds, megabytes in shown)
    half = [megabytes for _, megabytes in seen[len(seen) // 2 :]]
    return f"""| seconds | resident, MB |
| ---: | ---: |
{rows}

In the second half of the run it lies between {min(half):.0f} and {max(half):.0f} MB.
Bounds: 256 MB of prompts that are kept (`max_prefix_bytes`), 256 of oneDNN's programs, one for each
number of tokens read at once (about half a megabyte each), 64 encodings of pictures, and what
pictures on their way take, which goes back to the system."""


def median(lane: Sequence[Round], name: str) -> float:
    """Return the median over rounds."""
    return float(statistics.median(each[name] for each in lane))
