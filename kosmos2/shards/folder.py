"""The folder of a job: finished parts, and the markers that say so.

    job.json                what the output depends on; a job of other settings is refused
    parts/000012/...        the files of a unit
    done/000012.json        {"job", "counts", "files": {name: [bytes, sha256, mtime]}}: written last
    quarantine/000012.json  {"reason"}: the unit failed every time it was tried
    making/                 what is being made; what a dead run left here goes when the next starts
    lock                    held by the run at work; the system lets go of it when that run dies

Only the process that holds the lock changes parts and markers: a worker that outlives its run
writes into a folder that nobody reads.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kosmos2.errors import ConfigError, one_line
from kosmos2.shards.unit import Counts, Quarantined

Files = Mapping[str, tuple[int, str, int]]
"""Size in bytes, sha256 and modification time in ns of each file, by its path in the part."""

_CONTENTS = ("making", "quarantine", "done", "parts", "job.json")


class JobFolder:
    """A locked job folder. `open` and `fresh` make one; leaving its `with` unlocks it."""

    def __init__(self, path: Path, settings: Mapping[str, Any], lock: int) -> None:
        self.path = path
        self.settings = settings
        self.fingerprint = _fingerprint(settings)
        self._lock: int | None = lock
        self._making = path / "making" / uuid.uuid4().hex[:12]

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> JobFolder:
        """Begin or go on with the job at `path`, which must have had the same settings.

        `settings` is JSON and holds everything that the output depends on: a digest of the
        inputs, the options, the hash of the weights, the version of the code.
        """
        path = path.absolute()
        lock = _locked(path)
        try:
            known = _known_settings(path)
            if known is not None:
                _check_same(path, known, settings)
            folder = cls(path, settings, lock)
            for name in ("parts", "done", "quarantine"):
                (path / name).mkdir(exist_ok=True)
            _discard(path / "making")
            folder._making.mkdir(parents=True)
            if known is None:
                folder._write(path / "job.json", settings)
        except BaseException:
            os.close(lock)
            raise
        return folder

    @classmethod
    def fresh(cls, path: Path, settings: Mapping[str, Any]) -> JobFolder:
        """Begin the job at `path` anew, whatever an earlier run of any settings left there."""
        path = path.absolute()
        lock = _locked(path)
        try:
            _known_settings(path)
            _empty(path)
        finally:
            os.close(lock)
        return cls.open(path, settings)

    @classmethod
    def sweep(cls, path: Path) -> None:
        """Remove what is left of a folder whose run was killed while it removed it."""
        is_ours = (path / "lock").is_file() or (path.is_dir() and not any(path.iterdir()))
        if is_ours and not (path / "job.json").exists():
            cls(path, {}, _locked(path)).remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what is half made and let other runs in. What is done stays."""
        if self._lock is not None:
            _discard(self._making)
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """Remove the whole folder: its output lies elsewhere now."""
        assert self._lock is not None, "the folder is closed"
        _empty(self.path)
        (self.path / "lock").unlink()
        os.close(self._lock)
        self._lock = None
        try:
            self.path.rmdir()
        except OSError as error:
            # Someone's own file, or another run that has just come in.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise

    def part(self, name: str) -> Path:
        """Return the folder where the files of the unit lie once it is done."""
        return self.path / "parts" / name

    def making(self, name: str) -> Path:
        """Return where a try at a unit may be made; no other run uses this place."""
        return self._making / name

    def done(self, name: str) -> Counts | None:
        """Return the counts of a unit whose marker and files are this job's and whole, or None."""
        marker = _read_json(self.path / "done" / f"{name}.json")
        if marker is None or marker["job"] != self.fingerprint:
            return None
        part = self.part(name)
        if not part.is_dir():
            return None
        expected = {
            file: (size, digest, at) for file, (size, digest, at) in marker["files"].items()
        }
        if not _unchanged(part, expected):
            return None
        return dict(marker["counts"])

    def names(self) -> Iterator[str]:
        """Yield the units that have a marker of this job, in the order of the input."""
        for path in sorted((self.path / "done").glob("*.json")):
            marker = _read_json(path)
            if marker is not None and marker["job"] == self.fingerprint:
                yield path.stem

    def commit(self, name: str, made: Path, counts: Counts, files: Files) -> None:
        """Make what lies at `made`, sealed as `files`, the part of the unit; its marker comes last.

        A part that lies there already, of a run that died before its marker, is replaced.
        """
        marker, part = self.path / "done" / f"{name}.json", self.part(name)
        if part.exists():
            marker.unlink(missing_ok=True)
            _sync_folder(marker.parent)
            shutil.rmtree(part)
        made.rename(part)
        _sync_folder(part.parent)
        self._mark(marker, counts, files)
        (self.path / "quarantine" / f"{name}.json").unlink(missing_ok=True)

    def _mark(self, marker: Path, counts: Counts, files: Files) -> None:
        files = {file: files[file] for file in sorted(files)}
        self._write(marker, {"job": self.fingerprint, "counts": dict(counts), "files": files})

    def quarantine(self, name: str, reason: str) -> None:
        """Keep the reason why the unit could not be done. It stays undone."""
        self._write(self.path / "quarantine" / f"{name}.json", {"reason": reason})

    def quarantined(self) -> tuple[Quarantined, ...]:
        """Return the units in quarantine, in the order of the input."""
        kept = (
            (path.stem, _read_json(path)) for path in sorted(self.path.glob("quarantine/*.json"))
        )
        return tuple(Quarantined(name, why["reason"]) for name, why in kept if why is not None)

    def _write(self, path: Path, value: Mapping[str, Any]) -> None:
        """Write so that the old file or the whole new one is found, also after a power cut."""
        half = self._making / f"{path.parent.name}-{path.name}"
        with half.open("w", encoding="utf-8") as stream:
            json.dump(value, stream)
            stream.flush()
            os.fsync(stream.fileno())
        half.rename(path)
        _sync_folder(path.parent)


def seal(made: Path) -> Files:
    """Return size, sha256 and time of each file under `made`, all of it safe on the disk."""
    paths = [path for path in sorted(made.rglob("*")) if path.is_file()]
    if len(paths) < 2:
        sealed = [_seal_file(path) for path in paths]
    else:
        # Most of the time is waiting for the disk, which can take several at once.
        with ThreadPoolExecutor(min(8, len(paths))) as pool:
            sealed = list(pool.map(_seal_file, paths))
    for folder in {path.parent for path in paths} | {made}:
        _sync_folder(folder)
    return {
        path.relative_to(made).as_posix(): file for path, file in zip(paths, sealed, strict=True)
    }


def _seal_file(path: Path) -> tuple[int, str, int]:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    found = path.stat()
    return found.st_size, digest, found.st_mtime_ns


def _unchanged(part: Path, expected: Files) -> bool:
    """Return whether the files are those that were sealed; a new date alone is no change."""
    found = {path.relative_to(part).as_posix(): path for path in part.rglob("*") if path.is_file()}
    if found.keys() != expected.keys():
        return False
    return all(_same_file(found[name], *seen) for name, seen in expected.items())


def _same_file(path: Path, size: int, digest: str, at: int) -> bool:
    status = path.stat()
    if status.st_size != size or status.st_mtime_ns == at:
        return status.st_size == size
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == digest


def _fingerprint(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _known_settings(path: Path) -> dict[str, Any] | None:
    """Return the settings of the job at `path`, None where none was begun; refuse other folders."""
    known = _read_json(path / "job.json")
    if known is None and set(os.listdir(path)) - {"lock", *_CONTENTS}:
        raise ConfigError(
            f"{one_line(path)} holds files that are no job's: name another folder for the "
            f"unfinished work, or empty this one"
        )
    return known


def _check_same(path: Path, known: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    names = sorted({*known, *settings})
    differing = [name for name in names if _shown(known, name) != _shown(settings, name)]
    if differing:
        changes = (
            f"{name} was {_short(_shown(known, name))}, now {_short(_shown(settings, name))}"
            for name in differing
        )
        raise ConfigError(
            f"{one_line(path)} holds unfinished work of other settings: {'; '.join(changes)}. "
            f"Use the same settings to go on with it, or --fresh to throw it away and begin anew"
        )


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name], sort_keys=True) if name in settings else "absent"


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def _locked(path: Path) -> int:
    """Return the open lock file of the folder, made if need be; refuse while another run holds it.

    The system lets go of the lock when its holder dies, however it dies.
    """
    name = path / "lock"
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 200).decode("utf-8", "replace").strip() or "unknown"
            os.close(lock)
            raise ConfigError(
                f"another run is at work in {one_line(path)} ({one_line(holder)}): wait for it or "
                f"stop it, or write to another place"
            ) from None
        # A run that has just removed the folder took the file away under our hands.
        if name.exists() and os.path.samestat(os.fstat(lock), name.stat()):
            break
        os.close(lock)
    os.ftruncate(lock, 0)
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return lock


def _empty(path: Path) -> None:
    """Remove what a job keeps, its settings last: cut short at any point, it is still a job."""
    for name in _CONTENTS:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)


def _discard(folder: Path) -> None:
    """Remove half-made things, also while a worker that outlived its run still adds to them."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
