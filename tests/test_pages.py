"""Pages: every link leads somewhere, and every file and study that a page names is there."""

import fnmatch
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))

LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"(?<![\w.<>*/-])[\w./*-]+\.(?:py|hpp|cpp|toml|sh|md|png)\b")
STUDY = re.compile(r"python -m (studies[\w.]+)")


@cache
def files():
    """Paths of all files that git knows or would add, from the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no checkout of git")
    return [path for path in listed if (ROOT / path).exists()]


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page):
    """Relative links of a page that lead nowhere."""
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def missing_files(text, known):
    """Files that a text names, as the end of a path or as a pattern, of which there is none."""
    # Links have a test of their own; what a command writes, or a reader replaces, is in capitals or the user's.
    named = set(FILE.findall(LINK.sub("", text)))
    return sorted(
        name
        for name in named
        if not name.split("/")[-1].split(".")[0].isupper()
        and not any(fnmatch.fnmatch("/" + path, "*/" + name) for path in known)
    )


def test_there_are_pages():
    assert {"README.md", "CONTRIBUTING.md", "design.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_named_file_is_there(page):
    assert missing_files(page.read_text(encoding="utf-8"), files()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_named_study_is_there(page):
    named = set(STUDY.findall(page.read_text(encoding="utf-8")))
    assert {name.replace(".", "/") + ".py" for name in named} <= set(files())


def test_every_page_is_reached_from_the_readme():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page not in reached:
            reached.add(page)
            links = LINK.findall(page.read_text(encoding="utf-8"))
            todo += [page.parent / link.partition("#")[0] for link in links if ".md" in link and "://" not in link]
    assert [page for page in PAGES if page.resolve() not in reached] == []


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# One two\n[x](#one-two) [y](#three) [z](b.md) [w](a.md#one-two) [v](https://example.org/c.md)")
    assert broken_links(page) == ["#three", "b.md"]


def test_missing_files_are_found():
    known = ["src/hmatrix/heads/ties.py", "cpp/kernels/kernel_avx2.cpp"]
    text = "`heads/ties.py`, ties.py (x), `eads/ties.py`, kernel_*.cpp, `kernel_neon.cpp`, NAME.py, [x](y.md)"
    assert missing_files(text, known) == ["eads/ties.py", "kernel_neon.cpp"]
