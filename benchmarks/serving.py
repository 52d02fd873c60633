"""`kosmos2 serve` under many clients, against one request at a time.

    python -m benchmarks.serving run --seconds 600 --clients 16 --results FILE
    python -m benchmarks.serving page --results FILE --out docs/results/serving.md

The server is a process of its own, and so are the clients. Pictures are all different, so that no
encoding is found again; every answer is held against the one that the model gives offline. Runs of
one client and of many alternate on the same server.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import shlex
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageEnhance

from benchmarks.machine import ROOT, stamp
from kosmos2.api import Kosmos2, Question, Reply, View, questions
from kosmos2.boxes import Box

NOUNS = ("dog", "tree", "car", "house", "apple", "book", "star", "guitar")
PRECISION = "fp32"
"""So that a batch of many rows and one row alone choose the same tokens."""


@dataclass(frozen=True)
class Case:
    """A request, and the text and markup of its offline answers."""

    path: str
    body: dict[str, Any]
    wanted: tuple[tuple[str, str], ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--seconds", type=float, default=600)
    run.add_argument("--clients", type=int, default=16)
    run.add_argument("--pictures", type=int, default=400)
    run.add_argument("--rounds", type=int, default=3)
    run.add_argument("--results", type=Path, required=True)
    page = commands.add_parser("page")
    page.add_argument("--results", type=Path, required=True)
    page.add_argument("--out", type=Path, required=True)
    told = parser.parse_args()
    if told.command == "run":
        results = measure(told)
        told.results.write_text(json.dumps(results, indent=1), encoding="utf-8")
        sys.stdout.write(page_of(results))
    else:
        told.out.write_text(page_of(json.loads(told.results.read_text())), encoding="utf-8")


def measure(told: argparse.Namespace) -> dict[str, Any]:
    """Return all that was measured."""
    model = Kosmos2.load(dtype=PRECISION)
    cases = list(cases_of(model, told.pictures))
    lanes: dict[str, list[dict[str, Any]]] = {"1": [], str(told.clients): []}
    begun_stamp = stamp().to_dict()
    with serving() as (address, process):
        drive(address, cases, 1, 5)  # the first requests find a cold process
        for _ in range(told.rounds):
            for clients, share in ((1, 0.25), (told.clients, 0.75)):
                seconds = told.seconds * share / told.rounds
                seen = drive(address, cases, clients, seconds)
                seen["memory"] = memory_of(process)
                lanes[str(clients)].append(seen)
                sys.stdout.write(f"{clients} clients: {seen}\n")
    alone = offline_rate(model, cases, told.seconds / 10)
    return {
        "command": f"python -m benchmarks.serving {shlex.join(sys.argv[1:])}",
        "stamp": begun_stamp,
        "lanes": lanes,
        "offline": alone,
        "pictures": told.pictures,
    }


def cases_of(model: Kosmos2, count: int) -> Iterator[Case]:
    """Yield requests of all five kinds, each with a picture of its own."""
    examples = sorted((ROOT / "examples").glob("*.jpg"))
    for number in range(count):
        data = picture(examples[number % len(examples)], number)
        view = model.look(data)
        path, fields, asked = request(number, view, model)
        replies = model.answer([((view,), each) for each in asked])
        yield Case(
            path,
            {"image": base64.b64encode(data).decode("ascii"), **fields},
            tuple((reply.text, reply.trace.markup) for reply in replies),
        )


def picture(path: Path, number: int) -> bytes:
    """Return a JPEG that differs from all with other numbers."""
    with Image.open(path) as image:
        changed = ImageEnhance.Brightness(image.convert("RGB")).enhance(0.9 + number % 97 / 480)
        changed = ImageEnhance.Color(changed).enhance(0.8 + number % 89 / 220)
    stream = io.BytesIO()
    changed.save(stream, "JPEG", quality=88)
    return stream.getvalue()


def request(
    number: int, view: View, model: Kosmos2
) -> tuple[str, dict[str, Any], Sequence[Question[Reply]]]:
    """Return an endpoint, the fields beside the picture, and the questions that they mean."""
    vocabulary, grid = model.tokenizer.vocabulary, model.tokenizer.grid
    one, two = NOUNS[number % 8], NOUNS[(number // 8 + 1) % 8]
    match number % 5:
        case 0:
            return "caption", {}, [questions.caption()]
        case 1:
            phrases = [f"a {one}", f"the {two}"]
            return "find", {"phrases": phrases}, [questions.find(p, vocabulary) for p in phrases]
        case 2:
            box = [0.1, 0.2, 0.6 + number % 7 / 20, 0.9]
            fields = {"boxes": [box], "unit": "normalised"}
            return "describe", fields, [questions.describe(Box(*box), grid)]
        case 3:
            question = f"What color is the {one}?"
            return "ask", {"question": question}, [questions.ask(question)]
        case _:
            return "caption", {"detail": True}, [questions.caption_in_detail()]


@contextmanager
def serving() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run the server; yield its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "kosmos2", "serve", "--port", str(port), "--dtype", PRECISION]
    with subprocess.Popen(words, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                httpx.get(f"{address}/ready").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        try:
            yield address, process
        finally:
            process.terminate()
            process.wait(60)


def drive(address: str, cases: Sequence[Case], clients: int, seconds: float) -> dict[str, Any]:
    """Have clients ask, each the next question when its last is answered; return what they saw."""
    took: list[float] = []
    faults: Counter[str] = Counter()
    stop = time.monotonic() + seconds

    def client(number: int) -> None:
        draw = random.Random(number)
        with httpx.Client(base_url=address, timeout=300) as session:
            while time.monotonic() < stop:
                case = draw.choice(cases)
                begun = time.monotonic()
                sent = session.post(f"/v1/{case.path}", json=case.body)
                took.append(time.monotonic() - begun)
                if sent.status_code != 200:
                    faults[f"status {sent.status_code}"] += 1
                    continue
                told = tuple((each["text"], each["markup"]) for each in sent.json()["results"])
                faults["wrong"] += told != case.wanted

    begun = time.monotonic()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.monotonic() - begun
    ranks = statistics.quantiles(took, n=100) if len(took) > 1 else took * 99
    return {
        "answers": len(took),
        "seconds": spent,
        "rate": len(took) / spent,
        "p50": ranks[49],
        "p95": ranks[94],
        "p99": ranks[98],
        "wrong": faults.pop("wrong", 0),
        "refused": dict(faults),
    }


def offline_rate(model: Kosmos2, cases: Sequence[Case], seconds: float) -> dict[str, float]:
    """Return how many requests a second the model answers with nothing around it, one by one."""
    begun, done = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        case = cases[done % len(cases)]
        data = base64.b64decode(case.body["image"])
        view = model.look(data)
        _, _, asked = request(done % len(cases), view, model)
        model.answer([((view,), each) for each in asked])
        done += 1
    return {"rate": done / (time.monotonic() - begun)}


def memory_of(process: subprocess.Popen[bytes]) -> float:
    """Return the resident megabytes of a process."""
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


def page_of(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    told = results["stamp"]
    (_, one), (many, crowd) = sorted(results["lanes"].items(), key=lambda lane: int(lane[0]))
    ratio = median(crowd, "rate") / median(one, "rate")
    rows = [
        f"| {name} | {median(lane, 'rate'):.1f} | {1000 * median(lane, 'p50'):.0f} | "
        f"{1000 * median(lane, 'p95'):.0f} | {1000 * median(lane, 'p99'):.0f} | "
        f"{sum(each['answers'] for each in lane):,} | {sum(each['wrong'] for each in lane)} | "
        f"{sum(sum(each['refused'].values()) for each in lane)} | "
        f"{lane[0]['memory']:.0f} – {lane[-1]['memory']:.0f} |"
        for name, lane in (("one client", one), (f"{many} clients", crowd))
    ]
    return f"""# The server under load, measured

`kosmos2 serve` with the embedded model ({PRECISION}): captions, detailed captions, phrases, boxes
and questions in equal parts about {results["pictures"]} different pictures; each client asks again
when it is answered. Every answer is held against the offline one.

```bash
{results["command"]}
```

- {told["processor"]}, {told["cores"]} cores, {told["memory_gb"]} GB; torch {told["torch"]},
  Python {told["python"]}; commit {told["commit"]}, {told["date"]}

|  | requests/s | p50, ms | p95, ms | p99, ms | answers | wrong | refused | memory, MB |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(rows)}

Medians of {len(crowd)} rounds that alternate. **{many} clients get {ratio:.2f} times the
throughput of one** (required: 3). Offline, with no server around it and one request at a time,
the model answers {results["offline"]["rate"]:.1f} requests a second.
"""


def median(lane: Sequence[dict[str, Any]], name: str) -> float:
    """Return the median over rounds."""
    return float(statistics.median(each[name] for each in lane))


if __name__ == "__main__":
    main()
