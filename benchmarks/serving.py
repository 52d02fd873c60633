"""`kosmos2 serve` under many clients, against one request at a time.

    python -m benchmarks.serving                       # ten minutes of sixteen clients; the page
    python -m benchmarks.serving --minutes 1 --rounds 1 --out /tmp/serving
    python -m benchmarks.serving --page docs/results/serving.json          # the page alone

The server is a process of its own, and so are the clients; they share the machine. Pictures are
many, so that most encodings are made anew; every answer is held against the one that the model
gives offline. Runs of one client and of many alternate on the same server, which is warm: both are
driven for some seconds before.
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
from functools import cached_property
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageEnhance

from benchmarks.machine import ROOT, stamp
from benchmarks.serving_page import page_of
from kosmos2.api import Kosmos2, Question, Reply, View, questions
from kosmos2.boxes import Box

NOUNS = ("dog", "tree", "car", "house", "apple", "book", "star", "guitar")
PRECISION = "auto"
"""What the command takes by itself: bf16 where the processor multiplies it."""
WARM = 5.0
"""Seconds that each number of clients asks before anything is measured."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    """A request, and the text and markup of its offline answers."""

    path: str
    body: dict[str, Any]
    wanted: tuple[tuple[str, str], ...]

    @cached_property
    def sent(self) -> bytes:
        """Return the body as it is sent; made once, for clients share the server's processors."""
        return json.dumps(self.body).encode("ascii")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="of many clients, all rounds")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5, help="of one client, then many")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs/results/serving", help="without .json and .md"
    )
    parser.add_argument("--page", type=Path, help="a .json of an earlier run: write its page alone")
    told = parser.parse_args()
    if told.page is not None:
        results = json.loads(told.page.read_text(encoding="utf-8"))
    else:
        results = measure(told)
        text = json.dumps(results, indent=1) + "\n"
        told.out.with_suffix(".json").write_text(text, encoding="utf-8")
    page = page_of(results)
    told.out.with_suffix(".md").write_text(page, encoding="utf-8")
    sys.stdout.write(page)


def measure(told: argparse.Namespace) -> dict[str, Any]:
    """Return all that was measured."""
    begun_stamp = stamp().to_dict()
    model = Kosmos2.load(dtype=PRECISION)
    cases = list(cases_of(model, told.pictures))
    lanes: dict[str, list[dict[str, Any]]] = {"1": [], str(told.clients): []}
    with serving() as (address, process), Watch(process.pid) as watch:
        for clients in (1, told.clients):
            drive(address, cases, clients, WARM)
        long = 60 * told.minutes / told.rounds
        for clients, seconds in ((1, long / 4), (told.clients, long)) * told.rounds:
            with Clocks(process.pid) as clocks:
                seen = drive(address, cases, clients, seconds)
            lanes[str(clients)].append(seen | clocks.told)
            sys.stderr.write(f"{clients} clients: {seen | clocks.told}\n")
    alone = offline_rate(model, cases, min(60.0, 6 * told.minutes))
    return {
        "command": shlex.join(["python", "-m", "benchmarks.serving", *sys.argv[1:]]),
        "stamp": begun_stamp,
        "precision": str(model.engine.runner.dtype).removeprefix("torch."),
        "lanes": lanes,
        "memory": watch.seen,
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
        address = f"127.0.0.1:{port}"
        for _ in range(600):
            try:
                httpx.get(f"http://{address}/ready").raise_for_status()
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
        session = HTTPConnection(address, timeout=300)
        while time.monotonic() < stop:
            case = draw.choice(cases)
            begun = time.monotonic()
            status, told = ask(session, case)
            took.append(time.monotonic() - begun)
            if status != 200:
                faults[f"status {status}"] += 1
            elif told != case.wanted:
                faults["wrong"] += 1
        session.close()

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


def ask(session: HTTPConnection, case: Case) -> tuple[int, tuple[tuple[str, str], ...]]:
    """Return the status of a request, and the text and markup of its answers."""
    session.request("POST", f"/v1/{case.path}", case.sent, {"Content-Type": "application/json"})
    answer = session.getresponse()
    body = answer.read()
    if answer.status != 200:
        return answer.status, ()
    return 200, tuple((each["text"], each["markup"]) for each in json.loads(body)["results"])


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


class Clocks:
    """A `with` block that knows afterwards how many cores the server, we and others kept busy."""

    told: dict[str, float]

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def _read(self) -> tuple[float, float, float, float]:
        fields = Path(f"/proc/{self._pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        server = sum(map(int, fields.split()[11:13])) / TICKS
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
        busy = sum(int(ticks) for place, ticks in enumerate(first) if place not in (3, 4)) / TICKS
        return time.monotonic(), server, time.process_time(), busy

    def __enter__(self) -> Clocks:
        self._begun = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        spent, server, clients, busy = (
            after - before for before, after in zip(self._begun, self._read(), strict=True)
        )
        self.told = {
            "server_cores": server / spent,
            "client_cores": clients / spent,
            "other_cores": max(0.0, busy - server - clients) / spent,
        }


class Watch:
    """A `with` block that reads the memory of a process every five seconds."""

    PAUSE = 5.0

    def __init__(self, pid: int) -> None:
        self.seen: list[tuple[float, float]] = []
        """Seconds since the beginning, resident megabytes."""
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(self.PAUSE):
            spent = round(time.monotonic() - begun, 1)
            self.seen.append((spent, memory_of(self._pid)))

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def memory_of(pid: int) -> float:
    """Return the resident megabytes of a process."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    main()
