"""Read a pickle of plain values (lists, dicts, texts, numbers) and of nothing else.

A pickle is a program that may call every importable function. This reader resolves no name at all:
a file that wants one is refused, whatever it is.
"""

from __future__ import annotations

import pickle
from pathlib import Path

from kosmos2.errors import RecordError


class _NamedError(Exception):
    """The pickle asks for something by name."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        raise _NamedError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: object) -> object:
        raise _NamedError(f"it refers to an object outside of it, {pid!r}")


def read_plain_pickle(path: Path) -> object:
    """Return the value of a pickle, of Python 2 or 3, that is made of plain values."""
    try:
        with path.open("rb") as file:
            # Texts of Python 2 are bytes; a letter that is no UTF-8 must not cost the file.
            return _Plain(file, encoding="utf-8", errors="replace").load()
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    except MemoryError as error:
        raise RecordError(f"{path} asks for more memory than there is") from error
    except _NamedError as error:
        raise RecordError(
            f"{path} is not made of plain values: {error}; such a file is never read here, "
            "as it could run a program. Take the data from another place"
        ) from error
    except Exception as error:  # a broken or hostile pickle fails in any way it likes
        raise RecordError(f"{path} is no complete pickle: {error!r}") from error
