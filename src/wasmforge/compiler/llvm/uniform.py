"""The prototype of functions with tail calls: every register that can carry an argument or a result, whatever the
type.

LLVM's `musttail` wants caller and callee to have the same prototype. So a function that makes tail calls is defined
with this one, and the call it makes has it too; what travels where is the same as with the function's own type, since
the convention has register arguments only. `calls` and `control` put values in and take them out with these.

A tail call of another instance needs help: LLVM restores r13, which a callee preserves, before it jumps, and loses the
other vmctx that it was to pass there. So such a call goes to one of two pieces of code that get the address of a
function reference or of an import in r10, and put everything in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from wasmforge.compiler.environ import (
    INTEGER_ARGUMENTS,
    INTEGER_RESULTS,
    VECTOR_ARGUMENTS,
    VECTOR_RESULTS,
    VMFuncRef,
    VMFunctionImport,
)
from wasmforge.compiler.llvm.prototype import Prototype

if TYPE_CHECKING:
    from wasmforge.compiler.llvm.builder import FunctionBuilder

__all__ = [
    "PARAMETERS",
    "RETURNS",
    "TAIL_IMPORT",
    "TAIL_REFERENCE",
    "arguments",
    "declarations",
    "parameters",
    "received",
    "results",
    "tail_code",
]

_VECTOR: Final = "<4 x float>"
_DOUBLES: Final = "<2 x double>"

RETURNS: Final = "{" + ", ".join(["i64"] * len(INTEGER_RESULTS) + [_VECTOR] * len(VECTOR_RESULTS)) + "}"

PARAMETERS: Final = (
    "ptr swiftself %vm, ptr nest %caller, "
    + ", ".join([f"i64 %u{k}" for k in range(len(INTEGER_ARGUMENTS))])
    + ", "
    + ", ".join([f"{_VECTOR} %w{k}" for k in range(len(VECTOR_ARGUMENTS))])
)
"""Of a definition."""


TAIL_REFERENCE: Final = "tail_reference"
TAIL_IMPORT: Final = "tail_import"
"""The pieces of code for tail calls of other instances: r10 is the address of a VMFuncRef, or of a VMFunctionImport."""

_TAIL_CODE: Final = {
    TAIL_REFERENCE: bytes((0x49, 0x8B, 0x42, VMFuncRef.WASM_CALL)),  # mov rax, [r10 + wasm call]
    TAIL_IMPORT: bytes((0x49, 0x8B, 0x42, VMFunctionImport.WASM_CALL)),
}
_TAIL_END: Final = (
    bytes((0x4D, 0x8B, 0x5A, VMFuncRef.VMCTX))  # mov r11, [r10 + vmctx], in both records
    + b"\x4d\x89\xea"  # mov r10, r13
    + b"\x4d\x89\xdd"  # mov r13, r11
    + b"\xff\xe0"  # jmp rax
)
assert VMFuncRef.VMCTX == VMFunctionImport.VMCTX


def tail_code() -> dict[str, Any]:
    """The chunk for the link step that has this code."""
    text = bytearray()
    functions = []
    for name, code in _TAIL_CODE.items():
        code += _TAIL_END
        functions.append((name, len(text), len(code)))
        text += code + b"\xcc" * (-len(code) % 16)
    empty = dict.fromkeys(("constants", "relocations", "offsets", "positions", "codes"), b"")
    return {"text": bytes(text), "functions": functions, "undefined": [], **empty}


def declarations(texts: list[str]) -> list[str]:
    """Declares of it what is used."""
    types = PARAMETERS.split(", ")
    parameters = ", ".join([t.rsplit(" %", 1)[0] for t in types])
    used = [name for name in _TAIL_CODE if any(f" @{name}(" in text for text in texts)]
    return [f"declare hidden swiftcc {RETURNS} @{name}({parameters}) #0" for name in used]


def _is_vector(ir: str) -> bool:
    return ir in ("float", "double") or ir[0] == "<"


def _widened(b: FunctionBuilder, ir: str, value: str) -> str:
    """A value as the i64 or the vector that fills its register."""
    if ir == "i64" or ir == _VECTOR:
        return value
    if ir == "i32":
        return b.emit(f"zext i32 {value} to i64")
    if ir == "ptr":
        return b.emit(f"ptrtoint ptr {value} to i64")
    if ir == "float":
        return b.emit(f"insertelement {_VECTOR} poison, float {value}, i64 0")
    if ir == "double":
        value, ir = b.emit(f"insertelement {_DOUBLES} poison, double {value}, i64 0"), _DOUBLES
    return b.emit(f"bitcast {ir} {value} to {_VECTOR}")


def _narrowed(name: str, ir: str, source: str) -> list[str]:
    """The lines that give `name` the value in the register `source`."""
    if ir == "i64":
        return [f"  {name} = bitcast i64 {source} to i64"]
    if ir == "i32":
        return [f"  {name} = trunc i64 {source} to i32"]
    if ir == "ptr":
        return [f"  {name} = inttoptr i64 {source} to ptr"]
    if ir == "float":
        return [f"  {name} = extractelement {_VECTOR} {source}, i64 0"]
    if ir == "double":
        return [
            f"  {name}.d = bitcast {_VECTOR} {source} to {_DOUBLES}",
            f"  {name} = extractelement {_DOUBLES} {name}.d, i64 0",
        ]
    return [f"  {name} = bitcast {_VECTOR} {source} to {ir}"]


def parameters(p: Prototype) -> list[str]:
    """The lines of a definition's entry that name its parameters, `%p<index>`."""
    lines: list[str] = []
    counts = [0, 0]
    for k, ir in p.register_params:
        vector = _is_vector(ir)
        lines += _narrowed(f"%p{k}", ir, f"%{'uw'[vector]}{counts[vector]}")
        counts[vector] += 1
    return lines


def arguments(b: FunctionBuilder, p: Prototype, values: list[str]) -> str:
    """The register arguments of a call, by the values of all parameters."""
    registers: tuple[list[str], list[str]] = ([], [])
    for k, ir in p.register_params:
        registers[_is_vector(ir)].append(_widened(b, ir, values[k]))
    integers, vectors = registers
    integers += ["poison"] * (len(INTEGER_ARGUMENTS) - len(integers))
    vectors += ["poison"] * (len(VECTOR_ARGUMENTS) - len(vectors))
    return ", ".join([f"i64 {v}" for v in integers] + [f"{_VECTOR} {v}" for v in vectors])


def _places(p: Prototype) -> list[tuple[int, str, int, str]]:
    """For each register result its index, its type, its place in `RETURNS` and the type there."""
    places = []
    counts = [0, len(INTEGER_RESULTS)]
    for k, ir in p.register_results:
        vector = _is_vector(ir)
        places.append((k, ir, counts[vector], _VECTOR if vector else "i64"))
        counts[vector] += 1
    return places


def results(b: FunctionBuilder, p: Prototype, values: list[str]) -> str:
    """What a function with these results returns."""
    whole = "poison"
    for k, ir, place, wide in _places(p):
        whole = b.emit(f"insertvalue {RETURNS} {whole}, {wide} {_widened(b, ir, values[k])}, {place}")
    return whole


def received(b: FunctionBuilder, p: Prototype, whole: str) -> list[tuple[int, str]]:
    """The register results of a call that returned `whole`, as (index, value)."""
    found = []
    for k, ir, place, _ in _places(p):
        register = b.emit(f"extractvalue {RETURNS} {whole}, {place}")
        name = f"%r{b.next}.{k}"
        b.out += _narrowed(name, ir, register)
        found.append((k, name))
    return found
