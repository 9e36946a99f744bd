"""Plain values of a header, checked one by one when they are read."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from hmatrix._support.checks import LARGEST_SIZE
from hmatrix.errors import FormatError


@dataclass(frozen=True)
class PlainValues:
    """Values by key, as JSON holds them.

    Parameters
    ----------
    subject
        Name of the file, for messages.
    values
        The values; anything else is refused.
    mend
        Remedy for what is wrong.
    place
        Keys that lead to them.
    """

    subject: str
    values: Any
    mend: str
    place: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            came = f"has {self.place or 'a header'} of {shown(self.values)}, not values by key"
            raise FormatError(self.subject, came, self.mend)

    def allow(self, keys: Collection[str]) -> None:
        """Refuse keys that are not among `keys`.

        Raises
        ------
        FormatError
            If there is one.
        """
        if unknown := sorted(map(str, self.values.keys() - keys)):
            came = f"has the unknown key {self._path(unknown[0])}"
            raise FormatError(self.subject, came, f"{self.mend}; known are {', '.join(sorted(keys))}")

    def part(self, key: str) -> "PlainValues":
        """Return the values by key that lie under a key."""
        return PlainValues(self.subject, self.get(key), self.mend, self._path(key))

    def parts(self) -> "dict[str, PlainValues]":
        """Return the values by key that lie under each key."""
        return {str(key): self.part(key) for key in self.values}

    def get(self, key: str) -> Any:
        """Return a value, whatever it is.

        Raises
        ------
        FormatError
            If there is none, as for all kinds of values.
        """
        if key not in self.values:
            raise FormatError(self.subject, f"has no {self._path(key)}", self.mend)
        return self.values[key]

    def text(self, key: str) -> str:
        """Return a string."""
        value = self.get(key)
        return value if isinstance(value, str) else self._refuse(key, value, "a string")

    def flag(self, key: str) -> bool:
        """Return a truth value."""
        value = self.get(key)
        return value if isinstance(value, bool) else self._refuse(key, value, "true or false")

    def shape(self, key: str) -> tuple[int, int]:
        """Return the shape ``(m, n)`` of a matrix, each at least 1 and below 2^31."""
        value = self.get(key)
        is_shape = isinstance(value, (list, tuple)) and len(value) == 2
        if not is_shape or not all(type(size) is int and 1 <= size <= LARGEST_SIZE for size in value):
            self._refuse(key, value, "rows and columns, of 1 to 2^31 - 1")
        return value[0], value[1]

    def refuse(self, key: str, wanted: str) -> NoReturn:
        """Raise the error of a value that is not what is wanted."""
        self._refuse(key, self.get(key), wanted)

    def _refuse(self, key: str, value: Any, wanted: str) -> NoReturn:
        raise FormatError(self.subject, f"has {self._path(key)} of {shown(value)}, not {wanted}", self.mend)

    def _path(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else str(key)


def shown(value: Any) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
