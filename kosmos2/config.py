"""Read a recipe (TOML) into frozen dataclasses; name a wrong key and its nearest match."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kosmos2.errors import ConfigError

T = TypeVar("T")


def load(kind: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Return the recipe at `path` as a `kind`, changed by `a.b=value` (value as TOML writes it)."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is no valid TOML: {error}") from error
    for override in overrides:
        _apply(tree, override)
    return build(kind, tree, where=path.name)


def from_overrides(kind: type[T], overrides: Sequence[str]) -> T:
    """Return a `kind` of its defaults, changed by `a.b=value`."""
    tree: dict[str, Any] = {}
    for override in overrides:
        _apply(tree, override)
    return build(kind, tree, where="--set")


def changed(value: T, overrides: Sequence[str]) -> T:
    """Return a recipe changed by `a.b=value`."""
    tree = as_tree(value)
    for override in overrides:
        _apply(tree, override)
    return build(type(value), tree, where="--set")


def build(kind: type[T], tree: Mapping[str, Any], *, where: str) -> T:
    """Return `tree` as a dataclass of type `kind`; unknown, missing, ill-typed keys are named."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in tree:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else f" Known keys: {', '.join(fields)}."
            raise ConfigError(f"{where}: unknown key '{key}'.{hint}")
    missing = [
        name
        for name, field in fields.items()
        if name not in tree
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: missing key '{missing[0]}'")
    values = {key: _value(hints[key], tree[key], f"{where}: {key}") for key in tree}
    return kind(**values)


def as_tree(value: object) -> dict[str, Any]:
    """Return a dataclass as plain values that `build` reads back to an equal one."""
    return dataclasses.asdict(value)  # type: ignore[call-overload,no-any-return]


def _apply(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set wants a.b=value, got '{override}'")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # an unquoted string
    *parents, last = path.strip().split(".")
    for parent in parents:
        if tree.get(parent) is None:  # not there, or an optional table that was not set
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: '{parent}' is no table")
    tree[last] = value


def _value(hint: object, value: object, where: str) -> object:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table, got {value!r}")
        return build(hint, value, where=where)
    origin = typing.get_origin(hint)
    if origin is tuple:
        return _tuple(hint, value, where)
    if origin is typing.Literal:
        return _one_of(typing.get_args(hint), value, where)
    if origin in (typing.Union, types.UnionType):
        return _union(hint, value, where)
    return _scalar(hint, value, where)


def _tuple(hint: object, value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} must be a list, got {value!r}")
    item, *rest = typing.get_args(hint)
    if rest == [...]:
        return tuple(_value(item, each, f"{where}[{n}]") for n, each in enumerate(value))
    if len(value) != 1 + len(rest):
        raise ConfigError(f"{where} must have {1 + len(rest)} values, got {value!r}")
    kinds = [item, *rest]
    return tuple(_value(kind, each, where) for kind, each in zip(kinds, value, strict=True))


def _one_of(choices: tuple[object, ...], value: object, where: str) -> object:
    if value not in choices:
        raise ConfigError(f"{where} must be one of {', '.join(map(str, choices))}, got {value!r}")
    return value


def _union(hint: object, value: object, where: str) -> object:
    kinds = typing.get_args(hint)
    if value is None and type(None) in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not type(None))
    return _value(kind, value, where)


def _scalar(kind: object, value: object, where: str) -> object:
    assert isinstance(kind, type), f"recipes have no fields of type {kind}"
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where} must be of type {kind.__name__}, got {value!r}")
    return value
