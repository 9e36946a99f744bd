"""Dataclasses of plain values, read back from JSON by the types of their fields."""

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from hmatrix._support.plain_values import shown


def read_plain(kind: Any, value: Any, name: str) -> Any:
    """Return what JSON says as a value of a type.

    Parameters
    ----------
    kind
        ``int``, finite ``float``, ``str``, ``Any``, an enumeration, a dataclass, a tuple of such, a mapping of strings
        to anything, or one of these and ``None``.
    value
        The value, as `json.loads` returns it.
    name
        Name of the value, for messages.

    Raises
    ------
    ValueError
        If it is of another type, or a dataclass lacks a field or has another one.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else read_plain(inner, value, name)
    if origin is tuple:
        return _read_tuple(arguments, value, name)
    if origin is Mapping:
        return _of_type(dict, value, name)
    if is_dataclass(kind):
        return _read_dataclass(kind, value, name)
    if issubclass(kind, Enum):
        if value not in list(kind):
            raise ValueError(f"{name} is {shown(value)}, not one of {', '.join(map(str, kind))}")
        return kind(value)
    if kind is float:
        number = float(value) if type(value) is int and abs(value) < 2**1000 else _of_type(float, value, name)
        if not math.isfinite(number):
            raise ValueError(f"{name} is {number}, not a finite number")
        return number
    return _of_type(kind, value, name)


def _read_tuple(kinds: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    entries = _of_type(list, value, name)
    if kinds[-1] is ...:
        kinds = (kinds[0],) * len(entries)
    if len(kinds) != len(entries):
        raise ValueError(f"{name} has {len(entries)} entries, not {len(kinds)}")
    return tuple(
        read_plain(kind, entry, f"{name}[{i}]") for i, (kind, entry) in enumerate(zip(kinds, entries, strict=True))
    )


def _read_dataclass(kind: Any, value: Any, name: str) -> Any:
    values, hints = _of_type(dict, value, name), get_type_hints(kind)
    wanted = [field.name for field in fields(kind)]
    if different := sorted(values.keys() ^ set(wanted)):
        raise ValueError(f"{name} lacks {different[0]}" if different[0] in wanted else f"{name} has {different[0]}")
    return kind(**{key: read_plain(hints[key], values[key], f"{name}.{key}") for key in wanted})


def _of_type(kind: type, value: Any, name: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{name} is {shown(value)}, not of type {kind.__name__}")
    return value
