"""Study files: all of a study in TOML, so that it can be committed and repeated.

Relative paths are relative to the file; ``$NAME`` and ``${NAME}`` in them are environment variables, and a path that
begins with one is relative to the current folder.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from hmatrix._support.file_names import file_name
from hmatrix.errors import HMatrixError, StudyError
from hmatrix.study.config import strategies
from hmatrix.study.config.settings import (
    AdmissibilityName,
    CoordinatesName,
    Data,
    DigitsData,
    FolderData,
    ImagenetteData,
    Interpolation,
    Method,
    Network,
    PreprocessingOverride,
    SplitterName,
    Structure,
    Study,
    Timing,
)

E = TypeVar("E", bound=StrEnum)


def read_study(path: Path) -> Study:
    """Read a study file.

    Raises
    ------
    StudyError
        If it is missing or malformed; the message names the key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyError(f"study file {path}", f"cannot be read ({error.strerror})", "name a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"study file {path}", f"is not TOML ({error})", "mend that line") from error
    table = _Table(content, path, "")
    study = Study(
        title=table.take("title", _string, path.stem),
        networks=tuple(_network(entry) for entry in table.tables("network")),
        data=_data(table.table("data")) if "data" in content else None,
        methods=table.take("methods", _list_of(_method), Study.methods),
        ranks=table.take("ranks", _list_of(_positive), Study.ranks),
        structure=_structure(table.table("structure")),
        timing=_timing(table.table("timing")),
        output=table.take("output", table.path, Path("results") / file_name(path.stem)),
    )
    table.finish()
    return study


def _network(table: "_Table") -> Network:
    network = Network(
        model=table.take("model", _string, None),
        weights=table.take("weights", table.path, None),
        layer=table.take("layer", _string, None),
        options=MappingProxyType(table.take("options", _mapping, {})),
        preprocessing=_preprocessing(table.table("preprocessing")),
    )
    if network.model is None and network.weights is None:
        raise table.error("model", "is missing", "name a network, or the file of a lone matrix under 'weights'")
    table.finish()
    return network


def _preprocessing(table: "_Table") -> PreprocessingOverride:
    override = PreprocessingOverride(
        resize=table.take("resize", _positive, None),
        crop=table.take("crop", _positive, None),
        interpolation=table.take("interpolation", _one_of(Interpolation), None),
        mean=table.take("mean", _three, None),
        std=table.take("std", _three, None),
    )
    table.finish()
    return override


def _data(table: "_Table") -> Data:
    source = table.take("source", _string, None)
    data: Data
    match source:
        case "folder":
            data = FolderData(table.require("path", table.path))
        case "imagenette":
            data = ImagenetteData(table.require("path", table.path))
        case "digits":
            data = DigitsData()
        case _:
            raise table.error("source", f"is {source!r}", "write 'folder', 'imagenette' or 'digits'")
    table.finish()
    return data


def _structure(table: "_Table") -> Structure:
    default = Structure()
    structure = Structure(
        coordinates=table.take("coordinates", _one_of(CoordinatesName), default.coordinates),
        splitter=table.take("splitter", _one_of(SplitterName), default.splitter),
        leaf_size=table.take("leaf_size", _positive, default.leaf_size),
        admissibility=table.take("admissibility", _one_of(AdmissibilityName), default.admissibility),
        eta=table.take("eta", _number, default.eta),
    )
    try:
        strategies.admissibility(structure)
    except HMatrixError as error:
        raise table.error("eta", error.came, error.mend) from error
    table.finish()
    return structure


def _timing(table: "_Table") -> Timing:
    timing = Timing(
        products=table.take("products", _positive, None), threads=table.take("threads", _positive, Timing.threads)
    )
    table.finish()
    return timing


class _Table:
    """A TOML table whose keys are taken one by one, so that unknown ones can be named."""

    def __init__(self, content: Mapping[str, Any], file: Path, name: str) -> None:
        self._left = dict(content)
        self._file = file
        self._name = name

    def error(self, key: str, came: str, mend: str) -> StudyError:
        return StudyError(f"study file {self._file}, key '{self._name}{key}'", came, mend)

    def take(self, key: str, convert: Callable[[Any], Any], default: Any) -> Any:
        """Return the converted value of a key, or `default` where there is none."""
        return self.require(key, convert) if key in self._left else default

    def require(self, key: str, convert: Callable[[Any], Any]) -> Any:
        if key not in self._left:
            raise self.error(key, "is missing", "add it")
        value = self._left.pop(key)
        try:
            return convert(value)
        except _UnusableError as problem:
            raise self.error(key, f"is {value!r}", str(problem)) from None

    def table(self, key: str) -> "_Table":
        """Return a sub-table; an empty one where there is none."""
        return _Table(self.take(key, _mapping, {}), self._file, f"{self._name}{key}.")

    def tables(self, key: str) -> list["_Table"]:
        """Return the tables of an array that must not be empty."""
        entries = self.require(key, _list_of(_mapping))
        return [_Table(entry, self._file, f"{self._name}{key}[{i}].") for i, entry in enumerate(entries)]

    def path(self, value: Any) -> Path:
        """Resolve a path of this file."""
        written = _string(value)
        text = os.path.expandvars(written)
        if unset := re.search(r"\$\{?\w+\}?", text):
            raise _UnusableError(f"set the environment variable {unset[0]}, or write the path in full")
        # Whoever sets a variable does not know where this file lies.
        folder = Path.cwd() if written.startswith("$") else self._file.parent
        return Path(os.path.normpath(folder / Path(text).expanduser()))

    def finish(self) -> None:
        """Refuse keys that were not taken: most often they are misspelt."""
        for key in self._left:
            raise self.error(key, "is unknown", "remove it, or mend its spelling")


class _UnusableError(Exception):
    """A value cannot be used; the text says what to write instead."""


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _UnusableError("write a string")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _UnusableError("write a table")
    return value


def _positive(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _UnusableError("write an integer of at least 1")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _UnusableError("write a number")
    return float(value)


def _three(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != 3:
        raise _UnusableError("write three numbers, one a channel")
    return tuple(_number(part) for part in value)


def _list_of(convert: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def convert_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise _UnusableError("write a list with at least one entry")
        return tuple(convert(part) for part in value)

    return convert_all


def _one_of(kind: type[E]) -> Callable[[Any], E]:
    def convert(value: Any) -> E:
        if value not in list(kind):
            raise _UnusableError(f"write one of {', '.join(map(repr, map(str, kind)))}")
        return kind(value)

    return convert


def _method(value: Any) -> Method:
    method = _one_of(Method)(value)
    if method not in strategies.COMPRESSORS:
        raise _UnusableError("leave it out: it is always measured")
    return method
