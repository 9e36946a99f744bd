"""Damage to files, seeded: bits, lengths, values of headers, integers of arrays, arrays that change places."""

import copy
import json
import time
from pathlib import Path

import numpy as np

from hmatrix._support.digests import ARRAYS, DIGESTS, sealed
from hmatrix.errors import HMatrixError

VALUES = [None, True, False, -1, 0, 1, 5, 2**31, 2**40, 10**30, 0.5, 1e308, "", "x", [], {}, [1], [3, 2**40], {"a": 5}]
"""Values of other types and sizes."""

INTEGERS = [-(2**31), -2, -1, 0, 1, 2, 63, 64, 65, 2**16, 2**26, 2**31 - 1]

LONGEST = 1.0
"""Seconds in which a file of some kilobytes is read or refused."""


def mutations(rng, path):
    """Iterate without end over damaged contents of a file: what was done, and the bytes.

    Files of arrays are those of safetensors; JSON is any other file that begins with a brace.
    """
    content = Path(path).read_bytes()
    if content[:1] == b"{":
        kinds = [_flipped, _cut, _edited_json]
    else:
        kinds = [_flipped, _flipped_header, _cut, _edited, _edited, _edited_arrays, _edited_arrays, _swapped, _unsealed]
    while True:
        kind = kinds[rng.integers(len(kinds))]
        changed = kind(rng, content)
        if changed is not None and changed != content:
            yield kind.__name__.strip("_"), changed


def check_mutations(rng, path, read, count, *, arrays_of, use):
    """Check that each of `count` mutations of a file is refused, or read as what the file held.

    Parameters
    ----------
    path
        The file, which is written anew, and put back at the end.
    read
        Function of the path, and of `verify`, that reads the file.
    arrays_of
        Function of what was read that returns its arrays by name.
    use
        Function of what was read that multiplies with it, which may not crash, whatever the digests would have said.

    Returns
    -------
    Number of mutations that were refused.
    """
    path = Path(path)
    content, expected = path.read_bytes(), arrays_of(read(path, verify=True))
    refused = 0
    try:
        for number, (kind, changed) in zip(range(count), mutations(rng, path), strict=False):
            # A file that is in use may be mapped: never the same one twice.
            path.unlink()
            path.write_bytes(changed)
            verify = bool(rng.random() < 0.5)
            start = time.process_time()
            try:
                found = read(path, verify=verify)
            except HMatrixError:
                refused += 1
            except Exception as error:
                path.with_suffix(".mutated").write_bytes(changed)
                raise AssertionError(f"{number} {kind}, verify={verify}: {error!r}; see {path}") from error
            else:
                # Those without digests are as older releases wrote them.
                if verify and kind not in ("edited", "edited_json", "unsealed"):
                    assert same(arrays_of(found), expected), f"{number} {kind}: read as something else"
                with np.errstate(all="ignore"):
                    use(found)
            seconds = time.process_time() - start
            assert seconds < LONGEST, f"{number} {kind}: {seconds:.1f} s"
    finally:
        path.unlink()
        path.write_bytes(content)
    return refused


def same(found, expected):
    """Whether arrays by name have the same bits."""
    return found.keys() == expected.keys() and all(
        found[name].dtype == array.dtype
        and found[name].shape == array.shape
        and found[name].tobytes() == array.tobytes()
        for name, array in expected.items()
    )


def split(content):
    """Return the header of a safetensors file, and the bytes of its arrays."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header, data):
    """Return the file of a header and of the bytes of arrays."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _flipped(rng, content, end=None):
    changed = bytearray(content)
    for place in rng.integers(len(content) if end is None else end, size=rng.integers(1, 5)).tolist():
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _flipped_header(rng, content):
    return _flipped(rng, content, 8 + int.from_bytes(content[:8], "little"))


def _cut(rng, content):
    if rng.random() < 0.3:
        return content + bytes(rng.integers(256, size=rng.integers(1, 100), dtype=np.uint8))
    return content[: rng.integers(len(content))]


def _edited(rng, content):
    """Another value in the header of the package, which has a digest that fits, or in that of safetensors."""
    header, data = split(content)
    metadata = header.get("__metadata__", {})
    if not metadata or rng.random() < 0.3:
        return joined(edited(rng, header), data)
    key = sorted(metadata)[rng.integers(len(metadata))]
    try:
        own = json.loads(metadata[key])
    except ValueError:
        return None
    own = edited(rng, own)
    if isinstance(own, dict) and rng.random() < 0.5 and isinstance(own.get(ARRAYS), dict):
        own = sealed({name: value for name, value in own.items() if name not in DIGESTS}, own[ARRAYS])
    header["__metadata__"] = {**metadata, key: json.dumps(own)}
    return joined(header, data)


def _edited_json(rng, content):
    return json.dumps(edited(rng, json.loads(content))).encode()


def edited(rng, values):
    """Return JSON with one value changed, gone or added."""
    values = copy.deepcopy(values)
    places = list(_places(values))
    if not places:
        return VALUES[rng.integers(len(VALUES))]
    parent, key = places[rng.integers(len(places))]
    value = VALUES[rng.integers(len(VALUES))]
    match rng.integers(4):
        case 0 if isinstance(parent, dict):
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent["more"] = value
        case 2 if type(parent[key]) is int:
            parent[key] += int(rng.integers(-2, 3))
        case _:
            parent[key] = value
    return values


def _places(values):
    """Iterate over the values of JSON, as parents with keys."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in list(pairs):
        yield values, key
        yield from _places(value)


def _entries(content, types):
    header, _ = split(content)
    return [entry for name, entry in header.items() if name != "__metadata__" and entry["dtype"] in types]


def _edited_arrays(rng, content):
    """Other integers in an array of int32."""
    entries = [entry for entry in _entries(content, {"I32"}) if np.prod(entry["shape"])]
    if not entries:
        return None
    begin, end = entries[rng.integers(len(entries))]["data_offsets"]
    length = 8 + int.from_bytes(content[:8], "little")
    array = np.frombuffer(content[length + begin : length + end], np.int32).copy()
    for place in rng.integers(array.size, size=rng.integers(1, 4)).tolist():
        near = int(array[place]) + int(rng.integers(-2, 3))
        array[place] = (
            np.clip(near, -(2**31), 2**31 - 1) if rng.random() < 0.5 else INTEGERS[rng.integers(len(INTEGERS))]
        )
    return content[: length + begin] + array.tobytes() + content[length + end :]


def _swapped(rng, content):
    """Two arrays under each other's name."""
    header, data = split(content)
    names = [name for name in header if name != "__metadata__"]
    if len(names) < 2:
        return None
    first, second = rng.choice(len(names), 2, replace=False)
    first, second = names[first], names[second]
    alike = [n for n in names if n != first and header[n]["shape"] == header[first]["shape"]]
    if alike and rng.random() < 0.7:
        second = alike[rng.integers(len(alike))]
    header[first], header[second] = header[second], header[first]
    return joined(header, data)


def _unsealed(rng, content):
    """A file without digests, as older releases wrote it, that is damaged."""
    header, data = split(content)
    metadata = header.get("__metadata__", {})
    for key, text in metadata.items():
        try:
            own = json.loads(text)
        except ValueError:
            continue
        if isinstance(own, dict):
            metadata[key] = json.dumps({name: value for name, value in own.items() if name not in DIGESTS})
    change = [_edited, _edited_arrays, _swapped, _flipped][rng.integers(4)]
    return change(rng, joined(header, data))
