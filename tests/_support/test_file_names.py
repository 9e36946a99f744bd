"""A name of a tensor or of a network becomes the name of one file, in the folder where it belongs."""

import itertools

import pytest

from hmatrix._support.file_names import file_name

HOSTILE = [
    "", ".", "..", "../..", "../out", "/etc/passwd", "a/b", "a\\b", "..\\b", "C:\\b", "c:b", "a\0b", "a\nb", "a b", " ",
    "a.", ".hidden", "-o", "~", "$HOME", "a*b", "con", "CON", "nul.weight", "com1", "lpt9.x", "é", "e\u0301", "\udc80",
    "A", "a", "FC", "Fc", "fc", "x" * 80, "x" * 81, "x" * 5000, "ü" * 300, "a-b", "a_b", "a:b", "a|b", "a__b",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_name_is_harmless(name, tmp_path):
    made = file_name(name)
    assert len(made.encode()) <= 120
    path = tmp_path / f"{made}-fig1-structure.png"
    assert path.parent == tmp_path
    assert made.isascii()
    assert made.isprintable()
    assert not set(made) & set('/\\:*?"<>| ')
    assert made[0] not in ".-"
    assert made[-1] != "."
    assert made.partition(".")[0].lower() not in {"con", "nul", "com1", "lpt9", ""}
    path.write_text(name, encoding="utf-8", errors="surrogateescape")
    assert [found.name for found in tmp_path.rglob("*")] == [path.name]


def test_no_two_names_share_a_file():
    """Capitals are told apart by those who write several files."""
    names = [(name,) for name in HOSTILE] + list(itertools.product(["a", "a-b", "b", "b-c", "A", "..", ""], repeat=2))
    # What a file name looks like is a name, too.
    names += [(file_name(*name),) for name in names if file_name(*name) != name[0]]
    for count in (1, 2):
        different = {name for name in names if len(name) == count}
        assert len({file_name(*name) for name in different}) == len(different) > 45


@pytest.mark.parametrize(
    "names", [("digits", "fc2"), ("mobilenet_v2", "classifier.1"), ("vit-b", "head"), ("w",), ("W",), ("MyNet", "FC")]
)
def test_plain_names_stay(names):
    assert file_name(*names) == "-".join(names)
