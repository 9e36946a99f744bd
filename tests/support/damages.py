"""What may happen to a file, drawn at random: bits that flip, cuts, values of JSON of another type, swapped arrays."""

import json
import random
import struct

import pytest

OTHER_VALUES = (None, True, 0, 1, -1, 3.5, 1e308, "", "0", "NaN", [], [[]], {}, {"x": 1}, -(10**30))


def damaged(content, rng):
    """The bytes of a safetensors file after a mishap, and its name; they differ from those before."""
    while True:
        mishap = rng.choice(MISHAPS)
        found = mishap(content, rng)
        if found != content:
            return found, mishap.__name__


def flip_bits(content, rng):
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 9))):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def cut(content, rng):
    return content[: rng.randrange(len(content))]


def lose_a_part(content, rng):
    first, end = sorted(rng.sample(range(len(content) + 1), 2))
    return content[:first] + content[end:]


def overwrite(content, rng):
    first, end = sorted(rng.sample(range(len(content) + 1), 2))
    return content[:first] + rng.choice((b"\0", b"\xff", b"{")) * (end - first) + content[end:]


def append(content, rng):
    return content + rng.randbytes(rng.randrange(1, 40))


def edit_the_header(content, rng):
    """Give a value of safetensors' own header another type or value."""
    header, body = split(content)
    return joined(edited(header, rng), body)


def edit_the_metadata(content, rng):
    """Give a value inside of our own header another type or value."""
    header, body = split(content)
    metadata = header["__metadata__"]
    name = rng.choice(sorted(metadata))
    metadata[name] = json.dumps(edited(json.loads(metadata[name]), rng))
    return joined(header, body)


def swap_arrays(content, rng):
    header, body = split(content)
    names = [name for name in header if name != "__metadata__"]
    if len(names) < 2:
        return content
    one, other = rng.sample(names, 2)
    header[one], header[other] = header[other], header[one]
    return joined(header, body)


MISHAPS = (flip_bits, cut, lose_a_part, overwrite, append, edit_the_header, edit_the_metadata, swap_arrays)


def edited(value, rng):
    """Another value of JSON: one place of it has another value, mostly of another type, or a key is missing."""
    places = list(_places(value))
    while True:
        found, place = json.loads(json.dumps(value)), rng.choice(places)
        if not place:
            return rng.choice(OTHER_VALUES)
        parent = found
        for key in place[:-1]:
            parent = parent[key]
        if rng.random() < 0.2:
            del parent[place[-1]]
        else:
            parent[place[-1]] = rng.choice(OTHER_VALUES)
        # true == 1 in Python, and not in JSON.
        if json.dumps(found) != json.dumps(value):
            return found


def _places(value, place=()):
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from _places(part, (*place, key))


def split(content):
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def joined(header, body):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def seeds(few, many):
    """Seeds of generators for a test, most of them for `make nightly`."""
    return [*range(few), pytest.param(range(few, many), marks=pytest.mark.nightly, id=f"{few}-{many}")]


def generators(seed):
    """The generators of such a parameter."""
    return [random.Random(number) for number in ([seed] if isinstance(seed, int) else seed)]
