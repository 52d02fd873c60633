"""What a run writes as it goes: one JSON object a line, each with its `step`."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from kosmos2.data.ledger import Ledger

LOG = "log.jsonl"
EVALUATIONS = "evaluation.jsonl"


def append(path: Path, entry: object) -> None:
    """Add a dataclass as the file's last line."""
    line = json.dumps(dataclasses.asdict(entry))  # type: ignore[call-overload]
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def forget_after(path: Path, step: int) -> None:
    """Drop the lines of later steps, which a resumed run makes again, and a line cut off."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line for line in lines if _is_kept(line, step)), encoding="utf-8")
    os.replace(partial, path)


def _is_kept(line: str, step: int) -> bool:
    try:
        entry: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:  # only a kill leaves half a line, and only behind a checkpoint
        return False
    return line.endswith("\n") and entry["step"] <= step


def write_ledger(folder: Path, rank: int, ledger: Ledger) -> None:
    """Write what became of samples since this process started: used, left out and why."""
    content = {
        "used": {str(source): count for source, count in sorted(ledger.used.items())},
        "left_out": [
            {"source": source, "reason": reason, "count": count, "such_as": such_as}
            for (source, reason), count in sorted(ledger.rejected.items())
            for such_as in [ledger.examples[source, reason]]
        ],
    }
    path = folder / f"samples-rank{rank}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(partial, path)
