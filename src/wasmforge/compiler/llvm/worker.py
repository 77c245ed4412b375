"""The worker process: `python -m wasmforge.compiler.llvm.worker`, started by `pool`.

It reads requests from standard input and writes one reply each to standard output, both as a u32 length and a
`marshal` value, replies with a CRC-32 between, and ends when its input ends. A request is a chunk: the module's
context (sent once a module) and some functions; the reply is machine code with what the link step needs, or an error
message.
"""

from __future__ import annotations

import marshal
import os
import resource
import select
import signal
import sys
import threading
import time
import zlib
from array import array
from collections.abc import Callable
from typing import Any, Final

from wasmforge.compiler.llvm import uniform
from wasmforge.compiler.llvm.context import BACKGROUND, ModuleContext
from wasmforge.compiler.llvm.line_program import read_rows
from wasmforge.compiler.llvm.object_file import IN_TEXT, TO_SYMBOL, ObjectFile, Relocation, parse_object
from wasmforge.compiler.llvm.prototype import Prototype, array_to_wasm, wasm_to_array
from wasmforge.compiler.llvm.translate import FunctionSource, translate
from wasmforge.compiler.tables.address_map import NO_POSITION
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import FuncType

__all__ = ["chunk_ir", "compile_chunk", "main"]

NICENESS: Final = 5
"""A third of the share of a process that is not nice: the program goes first, and the worker still gets on."""

IDLE_SECONDS: Final = 300
"""A worker that nobody has used for so long ends; the pool starts another one when it is needed."""

MEMORY_LIMIT: Final = 6 << 30
"""Bytes of address space. Threat: a module that makes LLVM allocate without bound would take the machine down."""

STACK_SIZE: Final = 100 << 20
"""Bytes. Some of LLVM recurses over the nesting of blocks."""

CPU_SECONDS: Final = 10
CPU_SECONDS_PER_INSTRUCTION: Final = {"hot": 0.0005, "speed": 0.0003, "none": 0.0002, "fast": 0.00006}
"""Processor time that a chunk may take, several times what real code needs. Threat: some of LLVM's
algorithms are superlinear, and a module can be made for that; the process is killed (SIGXCPU) when time is up."""


def chunk_ir(
    context: ModuleContext,
    functions: list[tuple[int, tuple[tuple[int, int], ...], bytes, int]],
    trampolines: list[tuple[str, int]],
    pipeline: str,
    translate_function: Callable[..., str] = translate,
) -> str:
    """The LLVM IR of a chunk: `functions` are (index, locals, body, position), `trampolines` (kind, type index)."""
    from wasmforge.compiler.llvm.codegen import FIRST_SCOPE, module_text

    prototypes: dict[FuncType, Prototype] = {}
    texts = []
    subprograms = []
    for k, (index, local_types, code, position) in enumerate(functions):
        ft = context.types[context.functions[index]]
        source = FunctionSource(index, ft, local_types, code, position)
        texts.append(translate_function(source, context, FIRST_SCOPE + k, prototypes, short_blocks=pipeline == "fast"))
        subprograms.append((index, position + 1))
    for kind, type_index in trampolines:
        make = array_to_wasm if kind == "a2w" else wasm_to_array
        texts.append(make(f"{kind}{type_index}", context.types[type_index]))
    declarations = _declarations(context, texts, {f[0] for f in functions}, prototypes)
    return module_text(texts, subprograms, declarations + uniform.declarations(texts))


def _declarations(
    context: ModuleContext, texts: list[str], defined: set[int], prototypes: dict[FuncType, Prototype]
) -> list[str]:
    """Declares the functions of other chunks that this one calls, and the slots that it calls functions through."""
    called = set()
    slots: set[str] = set()
    for text in texts:
        for piece in text.split(" @f")[1:]:
            number = piece[: piece.index("(")]
            if number.isdecimal():
                called.add(int(number))
        slots.update(piece[: piece.index("\n")] for piece in text.split(" = load ptr, ptr @s")[1:])
    lines = [f"@s{number} = external hidden global ptr" for number in sorted(slots)]
    for x in sorted(called - defined):
        ft = context.types[context.functions[x]]
        p = prototypes.get(ft) or Prototype(ft)
        lines.append(f"declare hidden swiftcc {p.returns} @f{x}(ptr swiftself{p.declared_params}) #0")
    return lines


def compile_chunk(context: ModuleContext, request: dict[str, Any]) -> dict[str, Any]:
    """Compiles a chunk (see `pool.Chunk` for the request). The reply holds, all integers packed as native arrays:

    - `text`, `constants`: bytes; `functions`: names with text offsets and sizes, in text order.
    - `undefined`: names of functions of other chunks (`f<index>`) or of slots (`s<index>`);
      `relocations`: rows of `object_file.Relocation`.
    - `offsets`, `positions`, `codes`: rows of the address map and the trap table (u32, u32, u8).
    """
    from wasmforge.compiler.llvm.codegen import compile_ir

    context.local = frozenset(f[0] for f in request["functions"]) if request["slots"] else None
    text = request["ir"] or chunk_ir(context, request["functions"], request["trampolines"], request["pipeline"])
    found = parse_object(compile_ir(text, request["pipeline"], context.tunables.verify_ir))
    functions = sorted(found.functions, key=lambda f: f[1])
    rows = _with_tail_code(found) if request["slots"] else found.relocations
    relocations = array("q")
    for r in rows:
        relocations.extend(r)
    offsets, lines, columns = read_rows(found.line_program, found.line_addresses)
    if request["functions"] and not offsets:
        # LLVM drops all positions of a module in which it finds a wrong one, and then no fault would be a trap.
        raise RuntimeError("LLVM has dropped the positions of the instructions")
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


def _with_tail_code(found: ObjectFile) -> list[Relocation]:
    """Appends the code for tail calls of other instances to a group that uses it: what joins a module while it runs
    refers to slots only. Returns the relocations that are left to do."""
    code = uniform.tail_code()
    starts = {name: start for name, start, _ in code["functions"]}
    if starts.keys().isdisjoint(found.undefined):
        return found.relocations
    found.text.extend(b"\xcc" * (-len(found.text) % 16))
    base = len(found.text)
    found.text.extend(code["text"])
    names = list(found.undefined)
    kept = [name for name in names if name not in starts]
    found.undefined[:] = kept
    relocations = []
    for r in found.relocations:
        if r.target_in == TO_SYMBOL:
            name = names[r.target]
            if name in starts:
                r = r._replace(target_in=IN_TEXT, target=base + starts[name])
            else:
                r = r._replace(target=kept.index(name))
        relocations.append(r)
    return relocations


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


def _watch() -> None:
    """Ends the process when the parent has closed the pipe or is gone, also in the middle of a compilation; LLVM
    runs with the GIL released."""
    poll = select.poll()
    poll.register(sys.stdin.buffer.fileno(), 0)
    while not poll.poll():
        pass
    os._exit(0)


def _limit(instructions: int, pipeline: str) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime + CPU_SECONDS + CPU_SECONDS_PER_INSTRUCTION[pipeline] * instructions
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = max(int(seconds), 0) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _prepare(background: bool) -> None:
    """Makes the process immune to Ctrl-C in the parent's terminal, bounded, and mortal; and modest, when the program
    that it works for runs meanwhile."""
    if background:
        os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit, value in ((resource.RLIMIT_AS, MEMORY_LIMIT), (resource.RLIMIT_STACK, STACK_SIZE)):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    threading.Thread(target=_watch, daemon=True).start()


def main() -> None:
    """The loop of the process."""
    _prepare(BACKGROUND in sys.argv)
    contexts: dict[int, ModuleContext] = {}
    while True:
        if not select.select([sys.stdin.buffer], [], [], IDLE_SECONDS)[0]:
            sys.exit(0)
        request = marshal.loads(_read(int.from_bytes(_read(4), "little")))
        _limit(request["instructions"], request["pipeline"])
        if "context" in request:
            contexts = {request["module"]: ModuleContext.decode(request["context"])}
        try:
            started = time.process_time()
            reply = compile_chunk(contexts[request["module"]], request)
            reply["seconds"] = time.process_time() - started
        except WasmtimeError as e:
            reply = {"error": str(e)}
        except RuntimeError as e:  # llvmlite's: LLVM refuses the text
            reply = {"error": f"compiler bug: {e}"}
        except Exception as e:
            if not contexts[request["module"]].tunables.verify_ir:
                raise  # the chunk is tried again, in a way that asks less of everybody
            reply = {"error": f"compiler bug: {e!r}"}
        data = marshal.dumps(reply)
        sys.stdout.buffer.write(len(data).to_bytes(4, "little") + zlib.crc32(data).to_bytes(4, "little") + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
