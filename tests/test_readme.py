"""The README and the pages of docs/ show only what works: their Python examples run and print what their comments
promise, and the files, commands and pages that they name exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _examples(page: Path) -> list[tuple[int, str]]:
    """The examples of a page, each with the number of the line that it starts in."""
    text = page.read_text()
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in EXAMPLE.finditer(text)]


WITH_EXAMPLES = [page for page in PAGES if _examples(page)]


def _promised(example: str) -> list[str]:
    """What the comments behind print calls say, in order."""
    lines = []
    for line in example.splitlines():
        if match := re.search(r"print\(.*\)\s+# (.+)$", line):
            lines.append(match[1])
        elif match := re.search(r"# prints (.+)$", line):
            lines.extend(match[1].split(", "))
    return lines


def test_pages_are_found() -> None:
    assert {"README.md", "tutorial.md", "sandbox.md"} <= {page.name for page in WITH_EXAMPLES}


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples_print_what_their_comments_promise(page: Path, tmp_path: Path) -> None:
    """The examples of a page are one program, so that later ones may go on with what earlier ones made. Its lines are
    those of the page: a traceback names them."""
    examples = _examples(page)
    assert [number + 1 for number, code in examples if not _promised(code) and "print(" in code] == []
    program = ""
    for start, code in examples:
        program += "\n" * (start - program.count("\n")) + code
    promised = [line for _, code in examples for line in _promised(code)]
    assert promised, "examples without a promised line test nothing"
    script = tmp_path / "page.py"
    script.write_text(program)
    result = subprocess.run(
        [sys.executable, script.name], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == promised


def test_named_files_exist() -> None:
    missing = []
    for page in PAGES:
        names = set(re.findall(r"`((?:docs|examples|tests|bench)/[\w./-]*|CONTRIBUTING\.md)`", page.read_text()))
        made = ("bench/results", "bench/build", "tests/wasi/")  # by commands that the pages name
        missing += [(page.name, n) for n in names if not n.startswith(made[:2]) and not (ROOT / n).exists()]
    assert re.search(r"`docs/", README)
    assert missing == []


def test_named_sources_exist() -> None:
    """Recipes and the architecture name files of rooms: `compiler/environ.py`."""
    missing = []
    for page in PAGES:
        if page.name in ("CONTRIBUTING.md", "architecture.md"):
            names = set(re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text()))
            assert names, page
            places = (ROOT, ROOT / "src/wasmforge")
            missing += [(page.name, n) for n in names if not any((place / n).exists() for place in places)]
    assert missing == []


def test_named_make_targets_exist() -> None:
    targets = {t for page in PAGES for t in re.findall(r"^make ([\w-]+)|`make ([\w-]+)`", page.read_text(), re.M)}
    makefile = (ROOT / "Makefile").read_text()
    names = {a or b for a, b in targets}
    assert names
    assert [t for t in names if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []


def test_links_between_pages_lead_somewhere() -> None:
    links = re.compile(r"\]\(([^)#]+\.md)(?:#[\w-]+)?\)")
    broken = [
        (page.name, link)
        for page in PAGES
        for link in links.findall(page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []


def test_the_site_has_the_pages_that_it_lists() -> None:
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(listed) > 10
    there = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(there)


def test_the_reference_covers_every_public_name() -> None:
    import wasmforge

    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    covered = set(re.findall(r"^::: wasmforge\.(\w+)$", pages, re.MULTILINE))
    # The annotations stand in the page about host functions, as a table.
    annotations = {"i32", "i64", "f32", "f64", "v128", "externref", "funcref"}
    assert sorted(set(wasmforge.__all__) - covered - annotations) == []
    table = (ROOT / "docs" / "howto" / "host-functions.md").read_text()
    assert [name for name in annotations if f"| `wasmforge.{name}`" not in table] == []


def _docstrings() -> list[tuple[str, str]]:
    import wasmforge

    found = []
    for name in wasmforge.__all__:
        thing = getattr(wasmforge, name)
        members = vars(thing).items() if isinstance(thing, type) else ()
        found.append((name, thing.__doc__ or ""))
        found += [(f"{name}.{k}", getattr(v, "__doc__", None) or "") for k, v in members if not k.startswith("_")]
    return found


def test_what_docstrings_raise_has_a_class() -> None:
    """`make docs` needs `Name: when` in these sections, and stops where there is none."""
    wrong = []
    for name, text in _docstrings():
        if section := re.search(r"^( *)Raises:\n((?:\1 +.*\n?|\n)+)", text, re.MULTILINE):
            first = re.match(r" *", section[2])
            indent = first[0] if first else ""
            lines = [line[len(indent) :] for line in section[2].splitlines() if line.startswith(indent)]
            wrong += [(name, line) for line in lines if line[:1].strip() and not re.match(r"[\w., ]+: ", line)]
    assert wrong == []
