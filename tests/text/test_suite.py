"""The modules of the specification suite through the text format: agreement with wasmtime, there and back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wast.suite import WHERE_TO_GET_IT, scripts, suite_folder
from wasmforge.binary import decode, encode, encode_expression, instructions
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.instructions import Opcode, is_block
from wasmforge.syntax.module import Module
from wasmforge.text import ParseError, parse, print_module
from wasmforge.text.reader import Reader
from wasmforge.wast.script import AssertBadModule, AssertTrap, DefineModule, ModuleForm, commands

FOLDER = suite_folder()
pytestmark = pytest.mark.skipif(FOLDER is None, reason=WHERE_TO_GET_IT)


def modules(name: str) -> Iterator[tuple[int, ModuleForm]]:
    """The modules of a script that have text, with their lines."""
    assert FOLDER is not None
    for command in commands((FOLDER / name).read_bytes(), name):
        if isinstance(command, (DefineModule, AssertBadModule)):
            yield command.line, command.module
        elif isinstance(command, AssertTrap) and isinstance(command.subject, ModuleForm):
            yield command.line, command.subject


def text_of(module: ModuleForm) -> str | None:
    """The text of a module, as another implementation would get it."""
    if module.form == "quote":
        return module.data.decode(errors="replace")
    if module.form != "text" or module.source.tokens[module.at] != "(":
        return None
    reader = Reader(module.source, module.at)
    reader.skip()
    return module.source.text[module.source.offset(module.at) : module.source.offset(reader.at - 1) + 1]


def test_wasmtime_makes_the_same_bytes() -> None:
    """Every module of the suite that this version parses, names and all. Wasmtime's choice between two encodings of
    an element segment is not part of the comparison; nor is where it places hints of folded instructions."""
    wasmtime = pytest.importorskip("wasmtime")
    compared = 0
    different = []
    for name in scripts():
        if name == "custom/branch_hint.wast":
            continue
        for line, module in modules(name):
            text = text_of(module)
            try:
                binary = module.encoded()
            except WasmtimeError:
                continue
            if text is None:
                continue
            try:
                theirs = bytes(wasmtime.wat2wasm(text))
            except wasmtime.WasmtimeError as e:
                if "confusing unicode" not in str(e):  # a lint of theirs, not a rule of the format
                    different.append((name, line, str(e)))
                continue
            compared += 1
            if (name, line) == ("type-rec.wast", 45):
                continue  # a type use without an index means no type of an explicit group there, against the suite
            if binary not in (theirs, encode(decode(theirs))):
                different.append((name, line, "other bytes"))
    assert not different
    assert compared > 3000


@pytest.mark.parametrize("part", range(4))
def test_there_and_back(part: int) -> None:
    """Text or binary, to a module, to text, to the same module, for every module of the suite."""
    different = []
    count = 0
    for name in scripts()[part::4]:
        for line, module in modules(name):
            try:
                record = decode(module.encoded())
                printed = print_module(record)
            except WasmtimeError:
                continue  # unsupported, or an instruction sequence that is malformed
            if module.form == "binary":
                # A data count that nothing needs, which the text cannot have, is most of these modules' point.
                record.data_count = parse(printed).data_count if _is_balanced(record) else None
                if not _is_canonical(record):
                    continue
            count += 1
            try:
                if encode(parse(printed)) != encode(record):
                    different.append((name, line))
            except ParseError as e:
                different.append((name, line, str(e)))
    assert not different
    assert count > 500


def _expressions(module: Module) -> Iterator[bytes]:
    yield from (g.init.code for g in module.globals)
    yield from (d.memory_offset.code for d in module.data if d.memory_offset is not None)
    for e in module.elements:
        if e.table_offset is not None:
            yield e.table_offset.code
        yield from (item.code for item in e.items if not isinstance(item, int))


def _is_canonical(module: Module) -> bool:
    """Whether the numbers inside code have their shortest encodings, blocks match their ends, and no run of locals is
    empty."""
    if any(count == 0 for body in module.code for count, _ in body.locals):
        return False
    codes = [*(body.code for body in module.code), *_expressions(module)]
    return _is_balanced(module) and all(encode_expression(instructions(code)) == code for code in codes)


def _is_balanced(module: Module) -> bool:
    for body in module.code:
        depth = 1
        for i in instructions(body.code):
            if depth == 0:
                return False
            depth += is_block(i.row.opcode) - (i.row.opcode == Opcode.END)
        if depth:
            return False
    return True
