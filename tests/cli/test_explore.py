"""`explore` writes one page in which lines of the same instruction belong together (reference, E1-05), and in which
nothing of the module is anything but text.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from wasmforge.binary import decode
from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.image import Image
from wasmforge.compiler.llvm.annotate import annotated, read_functions
from wasmforge.compiler.llvm.compile import compile_module
from wasmforge.text import wat2wasm
from wasmforge.validation import validate

from .conftest import Result

EXAMPLES = Path(__file__).parents[2] / "examples"

MODULE = """(module (import "env" "f" (func $f)) (memory 1) (table 2 funcref)
  (func $sum (export "sum") (param $n i32) (result i32) (local $s i32)
    (loop $next
      (local.set $s (i32.add (local.get $s) (i32.load (local.get $n))))
      (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (call $f)
    (local.get $s))
  (func $div (param i32 i32) (result i32) (i32.div_u (local.get 0) (local.get 1)))
  (func $switch (param i32) (block (block (block (br_table 0 1 2 (local.get 0)) unreachable)) (call $f))))"""


class Page(HTMLParser):
    """What a browser would see: sections of three columns of lines (text, position), and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.script = ""
        self.headings: list[str] = []
        self.columns: list[list[tuple[str, str | None]]] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self._inside = tag
        if tag == "b":
            self.columns.append([])
        elif tag == "p":
            self.columns[-1].append(("", dict(attrs).get("data-p")))
        elif tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "p":
            text, position = self.columns[-1][-1]
            self.columns[-1][-1] = (text + data, position)
        elif self._inside == "h2":
            self.headings[-1] += data
        elif self._inside == "script":
            self.script += data


@pytest.fixture
def explore(run: Callable[..., Result], tmp_path: Path) -> Callable[..., Page]:
    def explore(module: str, *words: str) -> Page:
        assert run("explore", *words, "-o", "page.html", module) == Result(0, "Exploration written to page.html\n", "")
        return Page((tmp_path / "page.html").read_text(encoding="utf-8"))

    return explore


def test_the_columns_belong_together(explore: Callable[..., Page]) -> None:
    page = explore(MODULE)
    assert page.headings == ["function 1 sum", "function 2 div", "function 3 switch"]
    text, ir, code = page.columns[:3]
    (load,) = [position for line, position in text if line.strip() == "i32.load"]
    assert any("load volatile i32" in line and position == load for line, position in ir)
    (subtraction,) = [position for line, position in text if line.strip() == "i32.sub"]
    assert any(" = sub i32" in line and position == subtraction for line, position in ir)
    text, ir, code = page.columns[3:6]
    (division,) = [position for line, position in text if line.strip() == "i32.div_u"]
    assert division is not None
    assert any("udiv i32" in line and position == division for line, position in ir)
    assert any(" divl " in line and position == division for line, position in code)
    for at in range(0, 9, 3):
        known = {position for _, position in page.columns[at]}
        for column in page.columns[at + 1 : at + 3]:
            assert {position for _, position in column if position is not None} <= known


def test_the_page_stands_alone(explore: Callable[..., Page]) -> None:
    """No address in it, and a policy that allows its own script and nothing else."""
    _check(explore(MODULE))


def _check(page: Page) -> None:
    assert page.tags.count("script") == 1
    assert set(page.tags) <= {"html", "head", "meta", "title", "style", "body", "header", "h1", "section", "h2", "div",
                              "b", "p", "script"}  # fmt: skip
    digest = b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    for tag, name, value in page.attributes:
        assert (tag, name) in {("html", "lang"), ("meta", "charset"), ("meta", "http-equiv"), ("meta", "content"),
                               ("div", "class"), ("p", "data-p")}  # fmt: skip
        if name == "data-p":
            assert value is not None and value.isdecimal()
        if name == "content":
            assert value is not None
            assert "default-src 'none'" in value
            assert f"script-src 'sha256-{digest}';" in value


HOSTILE = (
    "</p></div></section><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' data-p='1",
    "--><!-- <style>*{}</style> ]]>",
    "&lt;script&gt; &#60;b&#62;",
    "\u202e gnp.exe \u2066",
    "a\nb\r\t\x1b[2J\0",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(explore: Callable[..., Page], run: Callable[..., Result], name: str) -> None:
    """Threat: every string that a module carries, and its file's name, in the page of somebody who looks at it."""
    quoted = '"' + "".join(f"\\u{{{ord(c):x}}}" for c in name) + '"'
    module = f"""(module ${quoted} (type ${quoted} (func))
      (import {quoted} {quoted} (func $"i{quoted[1:]})) (memory 1)
      (global ${quoted} (mut i32) (i32.const 0)) (export {quoted} (func ${quoted}))
      (func ${quoted} (param ${quoted} i32) (local $"l{quoted[1:]} i32)
        (block ${quoted} (br_if ${quoted} (local.get ${quoted}))) (global.set ${quoted} (i32.const 1))
        (call $"i{quoted[1:]})) (data {quoted}))"""
    page = explore(module)
    _check(page)
    assert len(page.headings) == 1
    assert len(page.columns) == 3
    safe = "".join(c if c.isprintable() else "?" for c in name)
    assert page.headings[0] == f"function 1 {safe}"
    assert not any(c for line, _ in page.columns[0] for c in line if not c.isprintable())


def test_a_hostile_file_name_is_text(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "<script>x<b>.wat").write_text("(module (func))")
    assert run("explore", "<script>x<b>.wat", "-o", "page.html").status == 0
    _check(Page((tmp_path / "page.html").read_text()))


@pytest.mark.parametrize("settings", [{}, {"consume_fuel": True, "epoch_interruption": True}])
def test_the_code_is_what_would_run(settings: dict[str, bool]) -> None:
    """The locations that the page needs do not change what LLVM makes."""
    tunables = Tunables(**settings)
    module = decode(bytes(wat2wasm((EXAMPLES / "mandelbrot.wat").read_text())))
    facts = validate(module)
    plain = Image(compile_module(module, facts, tunables))
    with_locations = Image(compile_module(module, facts, tunables, prepare=annotated))
    assert bytes(plain.section(".text")) == bytes(with_locations.section(".text"))
    assert len(with_locations.section(".wasmforge.addrmap")) > len(plain.section(".wasmforge.addrmap"))


def test_annotated_ir_reads_back() -> None:
    ir = "\n".join(
        (
            "declare void @f7()",
            "define hidden swiftcc i32 @f3(i32 %p0) #0 !dbg !10 {",
            "entry:",
            "  %0 = add i32 %p0, 1, !dbg !DILocation(line: 61, column: 0, scope: !10)",
            "}",
            "!0 = !{}",
        )
    )
    assert list(read_functions(ir)) == [
        (3, [("define hidden swiftcc i32 @f3(i32 %p0) #0 {", None), ("entry:", None), ("  %0 = add i32 %p0, 1", 60),
             ("}", None)])
    ]  # fmt: skip


def test_outputs(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "app.wat").write_text("(module (func))")
    assert run("explore", "app.wat").out == "Exploration written to app.explore.html\n"
    assert run("explore", "-o", "-", "app.wat").out.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?:|//", (tmp_path / "app.explore.html").read_text())
    assert run("explore", "-o", "no/such/place", "app.wat").status == 1


@pytest.mark.parametrize(
    "words",
    [(), ("a", "b"), ("-",), ("-C", "compiler=baseline", "a"), ("-W", "timeout=1", "a"), ("--target", "x", "a")],
)
def test_refusals(run: Callable[..., Result], words: tuple[str, ...]) -> None:
    assert run("explore", *words).status == 2


def test_modules_that_are_none(run: Callable[..., Result]) -> None:
    assert run("explore", "nothing.wasm").status == 1
    assert run("explore", "(module (func (result i32)))").status == 1
