"""The worker process: `python -m wasmforge.compiler.llvm.worker`, started by `pool`.

It reads requests from standard input and writes one reply each to standard output, both as a u32 length and a
`marshal` value, and ends when its input ends. A request is a chunk: the module's context (sent once a module) and
some functions; the reply is machine code with what the link step needs, or an error message.
"""

from __future__ import annotations

import marshal
import sys
from array import array
from typing import Any

from wasmforge.compiler.llvm.context import ModuleContext
from wasmforge.compiler.llvm.line_program import read_rows
from wasmforge.compiler.llvm.object_file import parse_object
from wasmforge.compiler.llvm.prototype import Prototype, array_to_wasm, wasm_to_array
from wasmforge.compiler.llvm.translate import FunctionSource, translate
from wasmforge.compiler.tables.address_map import NO_POSITION
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import FuncType

__all__ = ["compile_chunk", "main"]


def chunk_ir(
    context: ModuleContext,
    functions: list[tuple[int, tuple[tuple[int, int], ...], bytes, int]],
    trampolines: list[tuple[str, int]],
) -> str:
    """The LLVM IR of a chunk: `functions` are (index, locals, body, position), `trampolines` (kind, type index)."""
    from wasmforge.compiler.llvm.codegen import FIRST_SCOPE, module_text

    prototypes: dict[FuncType, Prototype] = {}
    texts = []
    subprograms = []
    for k, (index, local_types, code, position) in enumerate(functions):
        ft = context.types[context.functions[index]]
        source = FunctionSource(index, ft, local_types, code, position)
        texts.append(translate(source, context, FIRST_SCOPE + k, prototypes))
        subprograms.append((index, position + 1))
    for kind, type_index in trampolines:
        make = array_to_wasm if kind == "a2w" else wasm_to_array
        texts.append(make(f"{kind}{type_index}", context.types[type_index]))
    return module_text(texts, subprograms, _declarations(context, texts, {f[0] for f in functions}, prototypes))


def _declarations(
    context: ModuleContext, texts: list[str], defined: set[int], prototypes: dict[FuncType, Prototype]
) -> list[str]:
    """Declares the functions of other chunks that this one calls."""
    called = set()
    for text in texts:
        for piece in text.split(" @f")[1:]:
            number = piece[: piece.index("(")]
            if number.isdecimal():
                called.add(int(number))
    lines = []
    for x in sorted(called - defined):
        ft = context.types[context.functions[x]]
        p = prototypes.get(ft) or Prototype(ft)
        lines.append(f"declare hidden swiftcc {p.returns} @f{x}(ptr swiftself{p.declared_params}) #0")
    return lines


def compile_chunk(context: ModuleContext, request: dict[str, Any]) -> dict[str, Any]:
    """Compiles a chunk (see `pool.Chunk` for the request). The reply holds, all integers packed as native arrays:

    - `text`, `constants`: bytes; `functions`: names with text offsets and sizes, in text order.
    - `undefined`: names of functions of other chunks; `relocations`: rows of `object_file.Relocation`.
    - `offsets`, `positions`, `codes`: rows of the address map and the trap table (u32, u32, u8).
    """
    from wasmforge.compiler.llvm.codegen import compile_ir

    text = chunk_ir(context, request["functions"], request["trampolines"])
    found = parse_object(compile_ir(text, request["pipeline"]))
    functions = sorted(found.functions, key=lambda f: f[1])
    relocations = array("q")
    for r in found.relocations:
        relocations.extend(r)
    offsets, lines, columns = read_rows(found.line_program, found.line_addresses)
    offsets, positions, codes = _table_rows(functions, offsets, lines, columns)
    return {
        "text": bytes(found.text),
        "constants": bytes(found.constants),
        "functions": functions,
        "undefined": found.undefined,
        "relocations": relocations.tobytes(),
        "offsets": offsets.tobytes(),
        "positions": positions.tobytes(),
        "codes": codes.tobytes(),
    }


def _table_rows(
    functions: list[tuple[str, int, int]], offsets: array[int], lines: array[int], columns: array[int]
) -> tuple[array[int], array[int], array[int]]:
    """Line rows to table rows, which never reach beyond the end of their function.

    Machine instructions without a location have line 0. The only ones among them that touch guest memory are loads
    that LLVM took out of an instruction again into which it had folded them: it forgets the load's location, but the
    instruction that follows has it. So such rows take the next row's entry if that may trap, else the one before.
    """
    kept_offsets, positions, codes = array("I"), array("I"), array("B")
    ends = [start + size for _, start, size in functions]
    k = 0
    position = NO_POSITION
    for row, offset in enumerate(offsets):
        while k < len(ends) and ends[k] <= offset:
            position = NO_POSITION
            if ends[k] < offset:
                kept_offsets.append(ends[k])
                positions.append(position)
                codes.append(0)
            k += 1
        code = 0
        if lines[row]:
            position = lines[row] - 1
            code = columns[row]
        elif row + 1 < len(offsets) and columns[row + 1] and lines[row + 1] and offsets[row + 1] < ends[k]:
            position = lines[row + 1] - 1
            code = columns[row + 1]
        kept_offsets.append(offset)
        positions.append(position)
        codes.append(code)
    return kept_offsets, positions, codes


def _read(size: int) -> bytes:
    data = sys.stdin.buffer.read(size)
    if len(data) < size:
        sys.exit(0)  # the parent has closed the pipe or is gone
    return data


def main() -> None:
    """The loop of the process."""
    contexts: dict[int, ModuleContext] = {}
    while True:
        request = marshal.loads(_read(int.from_bytes(_read(4), "little")))
        if "context" in request:
            contexts = {request["module"]: ModuleContext.decode(request["context"])}
        try:
            reply = compile_chunk(contexts[request["module"]], request)
        except WasmtimeError as e:
            reply = {"error": str(e)}
        except RuntimeError as e:  # llvmlite's: LLVM refuses the text
            reply = {"error": f"compiler bug: {e}"}
        data = marshal.dumps(reply)
        sys.stdout.buffer.write(len(data).to_bytes(4, "little") + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
