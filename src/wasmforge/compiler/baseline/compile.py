"""A whole module ahead of time: every function, the trampolines, and one image, in this process and without LLVM."""

from __future__ import annotations

from array import array

from wasmforge.compiler.baseline.context import Context
from wasmforge.compiler.baseline.function import Compiler
from wasmforge.compiler.baseline.trampolines import array_to_wasm, wasm_to_array
from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.link import canonical_types, link
from wasmforge.compiler.tables.address_map import NO_POSITION
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.module import Module
from wasmforge.validation import ModuleValidation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = ["check_supported", "compile_module"]

_ALIGNMENT: Final = 16


def compile_module(
    module: Module,
    facts: ModuleValidation,
    tunables: Tunables,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> bytes:
    """Compiles a module in a single pass and returns its image (`compiler.image`), of the same form as the LLVM
    compiler's.

    `facts` are what validation returned for this module. `workers` is there for likeness: everything happens in this
    process. `progress` is called with the instructions compiled so far and in all. Raises `WasmtimeError` when the
    module asks for something that is not supported or cannot be compiled.
    """
    check_supported(facts, tunables)
    func_refs = sorted(facts.escaping)
    canonical = canonical_types(module.types)
    context = Context(module, func_refs, facts.tail_callers, tunables)
    text = _Text()
    for t in sorted({canonical[context.functions[x]] for x in func_refs}):
        text.add_trampoline(f"a2w{t}", array_to_wasm(context.signature(t)))
    for t in sorted(set(canonical)):
        text.add_trampoline(f"w2a{t}", wasm_to_array(context.signature(t)))
    compiler = Compiler(context)
    total = sum(facts.instruction_counts)
    done = 0
    for k in range(len(module.code)):
        text.add_function(compiler, context.imported_functions + k)
        done += facts.instruction_counts[k]
        if progress is not None:
            progress(done, total)
    text.resolve(context.imported_functions)
    return link(module, func_refs, [text.chunk()], canonical, tunables)


def check_supported(facts: ModuleValidation, tunables: Tunables) -> None:
    """Raises `WasmtimeError` for modules that this compiler cannot compile, and settings that it cannot follow."""
    if tunables.debug_guest:
        raise WasmtimeError("the baseline compiler does not support debug_guest yet")


class _Text:
    """The code of the module, growing; what the link step calls a chunk."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.functions: list[tuple[str, int, int]] = []
        self.starts: list[int] = []
        self.call_places: list[int] = []
        self.call_targets: list[int] = []
        self.offsets = array("I")
        self.positions = array("I")
        self.codes = array("B")

    def place(self, name: str, code: bytes) -> int:
        """Appends code and returns where it starts."""
        self.text += b"\xcc" * (-len(self.text) % _ALIGNMENT)
        start = len(self.text)
        self.text += code
        self.functions.append((name, start, len(code)))
        return start

    def add_trampoline(self, name: str, code: bytes) -> None:
        self.offsets.append(self.place(name, code))
        self.positions.append(NO_POSITION)
        self.codes.append(0)

    def add_function(self, compiler: Compiler, index: int) -> None:
        compiled = compiler.compile_function(index)
        start = self.place(f"f{index}", compiled.code)
        self.starts.append(start)
        self.call_places.extend([start + place for place in compiled.call_places])
        self.call_targets.extend(compiled.call_targets)
        rows = compiled.rows
        self.offsets.extend([start + offset for offset in rows[::3]])
        self.positions.extend(rows[1::3])
        self.codes.extend(rows[2::3])

    def resolve(self, imported: int) -> None:
        """Fills in the distances of all calls."""
        text = self.text
        starts = self.starts
        for place, target in zip(self.call_places, self.call_targets, strict=True):
            distance = starts[target - imported] - place - 4
            text[place : place + 4] = distance.to_bytes(4, "little", signed=True)

    def chunk(self) -> dict[str, object]:
        return {
            "text": self.text,
            "constants": b"",
            "functions": self.functions,
            "undefined": [],
            "relocations": b"",
            "offsets": self.offsets.tobytes(),
            "positions": self.positions.tobytes(),
            "codes": self.codes.tobytes(),
        }
