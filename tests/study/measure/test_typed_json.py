"""Values of JSON become a dataclass by the types of its fields, or are named."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import pytest

from hmatrix.study.measure.typed_json import read_plain


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    count: int


@dataclass(frozen=True)
class Outer:
    name: str
    size: float
    colour: Colour
    inner: Inner | None
    pair: tuple[int, str]
    many: tuple[Inner, ...]
    free: Mapping[str, Any]


VALUE = Outer("x", 0.5, Colour.RED, Inner(1), (2, "y"), (Inner(3), Inner(4)), {"a": [None]})
PLAIN = {**asdict(VALUE), "pair": [2, "y"], "many": [{"count": 3}, {"count": 4}]}


def test_plain_values_come_back():
    assert read_plain(Outer, PLAIN, "it") == VALUE
    assert read_plain(Outer, {**PLAIN, "inner": None, "size": 2}, "it").inner is None
    assert type(read_plain(Outer, {**PLAIN, "size": 2}, "it").size) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "it.name is 3, not of type str"),
        ({"size": "3"}, "it.size is '3', not of type float"),
        ({"size": True}, "it.size is True"),
        ({"size": math.nan}, "it.size is nan, not a finite number"),
        ({"size": 10**400}, "it.size is 1000"),
        ({"colour": "blue"}, "it.colour is 'blue', not one of red"),
        ({"colour": ["red"]}, "it.colour is "),
        ({"inner": {"count": True}}, "it.inner.count is True, not of type int"),
        ({"inner": {"count": 1.0}}, "it.inner.count is 1.0"),
        ({"inner": {}}, "it.inner lacks count"),
        ({"inner": [1]}, "it.inner is "),
        ({"pair": [2]}, "it.pair has 1 entries, not 2"),
        ({"many": [{"count": 3}, None]}, "it.many.1. is None, not of type dict"),
        ({"free": []}, "it.free is "),
        ({"more": 1}, "it has more"),
    ],
)
def test_another_value_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        read_plain(Outer, {**PLAIN, **changes}, "it")
