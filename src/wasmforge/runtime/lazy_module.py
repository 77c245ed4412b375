"""`LazyModule`: a module that is compiled while it runs, each function at its first call. `wasmforge._lazy` makes one
from a validated module and gives it a `FunctionCompiler`, since the runtime does not know the compilers.

A function has one address for as long as the module lives: its entry in the linkage at the start of the text, which
jumps through the function's slot. Everything outside of the module's own code uses it (function references, imports
of other instances, call descriptors); calls between functions of the module go through the slot themselves.
"""

from __future__ import annotations

from time import thread_time

from wasmforge.compiler.environ import DEFAULT_TIER_UP_THRESHOLD
from wasmforge.compiler.image import MEMORY_SECTION, RODATA_WASM_SECTION
from wasmforge.compiler.info import CodeRange
from wasmforge.runtime.compiled_module import CompiledModule
from wasmforge.runtime.grown_image import Originals
from wasmforge.runtime.lazy_code import BASELINE, LazyCode
from wasmforge.runtime.lock import LOCK
from wasmforge.runtime.tier_up import TierUp
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, Protocol

    from wasmforge.compiler.info import CompiledModuleInfo
    from wasmforge.runtime.engine_state import EngineState
    from wasmforge.runtime.grown_image import Growth
    from wasmforge.runtime.tier_up import Optimiser

    class Keeper(Protocol):
        """Keeps what was compiled for other processes: `cache.growth`."""

        def gone(self, module: LazyModule) -> None: ...

    class CompiledFunction(Protocol):
        """Code that runs wherever it is put, aligned to 16 bytes. `rows`: see `lazy_code.Piece`."""

        @property
        def code(self) -> bytes: ...
        @property
        def rows(self) -> list[int]: ...
        @property
        def call_targets(self) -> list[int]: ...

        def placed(self, distance: int, imported: int) -> bytes:
            """The code for a place `distance` bytes before the slot of the first defined function."""

    class FunctionCompiler(Protocol):
        """Compiles a module piece by piece. Any thread may call any method at any time, also while another call is
        not finished: a collection during one may run finalisers that call wasm."""

        def compile(self, defined: int) -> CompiledFunction:
            """A defined function. Raises WasmtimeError for one that is too complex."""

        def linkage(self, count: int, start: int, slots: int, stub: int) -> bytes:
            """`count` entries for address `start`, with slots and the first call's stub at these addresses."""

        def first_call_stub(self) -> bytes: ...
        def array_to_wasm(self, type_index: int) -> bytes: ...
        def wasm_to_array(self, type_index: int) -> bytes: ...

        def tier_up_stub(self) -> bytes: ...
        def wasm_size(self, defined: int) -> int:
            """Bytes of a function's body."""

        def compile_all(self) -> bytes:
            """An image of the whole module."""

        def facts(self) -> bytes:
            """What it must be told to go on in another process."""

        entry_size: int
        """Bytes of an entry."""

        first_call: int
        """Offset in an entry of what runs at the first call: what slots contain at first."""


__all__ = ["LazyModule"]

_NO_ROWS: Final = memoryview(b"").cast("I")


class LazyModule(CompiledModule):
    """See the module's docstring. Safe to use from several threads.

    Parameters:
        info: the module record, which knows no code.
        compiler: makes the code.
        capacity: bytes of address space for machine code; functions beyond raise at their first call.
        data, pages: the sections for data segments and memory images, to which `info` refers.
        names: of functions, by index.
        originals: has the beginning of the binary with all function bodies, if the module may be kept for other
            processes.
        optimiser: makes better code for hot functions; None for code without counters.
        threshold: see `environ.DEFAULT_TIER_UP_THRESHOLD`.
    """

    __slots__ = (
        "_array_to_wasm",
        "_compiler",
        "_linkage",
        "_names",
        "_signatures",
        "_wasm_to_array",
        "code",
        "grown",
        "kept",
        "tier_up",
    )

    def __init__(
        self,
        engine: EngineState,
        info: CompiledModuleInfo,
        compiler: FunctionCompiler,
        capacity: int,
        *,
        data: bytes | bytearray,
        pages: bytes | bytearray,
        names: Mapping[int, str],
        originals: Originals | None = None,
        optimiser: Optimiser | None = None,
        threshold: int = DEFAULT_TIER_UP_THRESHOLD,
    ) -> None:
        sections = {RODATA_WASM_SECTION: memoryview(data)}
        if originals is None:
            originals = Originals.of(b"")
        originals.add_pages(pages)
        sections[MEMORY_SECTION] = memoryview(originals.data)[originals.pages_at :]
        count = len(info.functions)
        self.code = LazyCode(count, capacity + compiler.entry_size * count, sections, originals)
        self._start_with(compiler, compiler.entry_size, compiler.first_call, names)
        if count:
            self._add_linkage(count)
        self._set_up(engine, self.code, info)
        if optimiser is not None and count:
            self._add_tier_up(optimiser, threshold)

    def _start_with(
        self, compiler: FunctionCompiler, entry_size: int, first_call: int, names: Mapping[int, str] | None = None
    ) -> None:
        # Names are None when they are in a section.
        self._compiler = compiler
        self._linkage = (entry_size, first_call)
        self._names = names
        self._array_to_wasm: dict[int, CodeRange] = {}
        self._wasm_to_array: dict[int, CodeRange] = {}
        self._signatures: dict[int, int] | None = None
        self.tier_up: TierUp | None = None
        self.kept: Keeper | None = None
        self.grown: Callable[[], None] | None = None  # told about new code, without any lock

    def __del__(self) -> None:
        kept, self.kept = getattr(self, "kept", None), None
        if kept is not None:
            try:  # noqa: SIM105  # nothing may be imported at the end of the interpreter
                kept.gone(self)
            except Exception:
                pass  # whatever the finalisers of a cycle have undone, the next process compiles again

    @classmethod
    def restored(
        cls,
        engine: EngineState,
        info: CompiledModuleInfo,
        compiler: FunctionCompiler,
        code: LazyCode,
        growth: Growth,
        *,
        optimiser: Optimiser | None = None,
        threshold: int = DEFAULT_TIER_UP_THRESHOLD,
    ) -> LazyModule:
        """A module from an image, whose text `code` has."""
        self = cls.__new__(cls)
        self.code = code
        self._start_with(compiler, growth.entry_size, growth.first_call)
        region = code.region
        count = len(info.functions)
        if len(growth.packed_slots) != 8 * count or len(growth.packed_cells) not in (0, 8 * count):
            raise WasmtimeError("damaged compiled module: its growth record is of another module")
        if count:
            # All sums at once, as one large number: a loop would take a millisecond for 10,000 functions. No sum
            # reaches beyond its 64 bits.
            bases = code.text_address.to_bytes(8, "little") * count
            total = int.from_bytes(bases, "little") + int.from_bytes(growth.packed_slots, "little")
            region.slots.cast("B")[:] = total.to_bytes(8 * count, "little")
        self._set_up(engine, code, info)
        shared_type = self.engine_code.signatures().shared_type
        for made, saved in (
            (self._array_to_wasm, growth.array_to_wasm),
            (self._wasm_to_array, growth.wasm_to_array),
        ):
            for x, start, length in saved:
                made[shared_type(x)] = CodeRange(start, length)
        if optimiser is not None and growth.packed_cells:
            self.tier_up = TierUp(code, self.num_imported_functions, optimiser, threshold)
            region.counters.cast("B")[:] = growth.packed_cells
            region.stub[0] = code.text_address + growth.tier_up_stub
        return self

    def _add_linkage(self, count: int) -> None:
        """Entries first, so that function `k` has its entry at offset `k * entry_size`, then the stub."""
        from array import array

        code, compiler = self.code, self._compiler
        size = compiler.entry_size
        start = code.text_address
        stub = compiler.first_call_stub()
        with LOCK:
            entries_at = code.region.reserve(size * count)
            stub_at = code.region.reserve(len(stub))
            entries = compiler.linkage(count, start + entries_at, code.region.slots_address, start + stub_at)
            code.add(entries_at, entries, _NO_ROWS)
            code.add(stub_at, stub, _NO_ROWS)
        first = start + compiler.first_call
        code.region.slots[:] = memoryview(array("Q", range(first, first + size * count, size)))

    def _add_tier_up(self, optimiser: Optimiser, threshold: int) -> None:
        code = self.code
        self.tier_up = TierUp(code, self.num_imported_functions, optimiser, threshold)
        stub = self._compiler.tier_up_stub()
        with LOCK:
            start = code.region.reserve(len(stub))
            code.add(start, stub, _NO_ROWS)
        code.region.stub[0] = code.text_address + start

    # --- Compiling ----------------------------------------------------------------------------------------------

    def compiled_function(self, defined: int) -> int:
        """The address of the code of a defined function, which is compiled now unless it has been. Raises what the
        compiler raises."""
        code = self.code
        if defined not in code.current:
            # Without a lock: a collection in here may run finalisers that wait for another thread, which waits for the
            # lock. Two threads that call a function first at the same time both compile it, and one result is dropped.
            started = thread_time()
            compiled = self._compiler.compile(defined)
            from array import array  # brings `collections`, 2 ms that a start without new functions is spared

            rows = array("I", compiled.rows)
            with LOCK:
                if defined not in code.current:
                    start = code.region.reserve(len(compiled.code))
                    distance = code.region.slots_address - (code.text_address + start)
                    placed = compiled.placed(distance, self.num_imported_functions)
                    piece = code.add(start, placed, rows, defined, BASELINE)
                    piece.seconds = thread_time() - started
                    if self.tier_up is not None:
                        self.tier_up.add(defined, compiled.call_targets, piece.seconds)
                    code.publish((piece,))
            if self.grown is not None:
                self.grown()
        else:
            with LOCK:  # another thread was first; or a KeyboardInterrupt before the slot was written
                code.publish((code.current[defined],))
        return code.text_address + code.current[defined].start

    def count(self, defined: int) -> int:
        """How many calls and iterations of a function were counted."""
        return 0 if self.tier_up is None else self.tier_up.count(defined)

    def wasm_size(self, defined: int) -> int:
        """Bytes of a function's body."""
        return self._compiler.wasm_size(defined)

    def function_is_hot(self, defined: int) -> None:
        if self.tier_up is not None:
            self.tier_up.visit(defined)

    def array_to_wasm(self, type_index: int) -> CodeRange | None:
        return self._trampoline(self._array_to_wasm, type_index, array_to_wasm=True)

    def wasm_to_array_offset(self, signature: int) -> int | None:
        if self._signatures is None:
            shared_type = self.engine_code.signatures().shared_type
            self._signatures = {shared_type(x): x for x in reversed(range(len(self.info.types)))}
        x = self._signatures.get(signature)
        return None if x is None else self._trampoline(self._wasm_to_array, x, array_to_wasm=False).start

    def _trampoline(self, made: dict[int, CodeRange], type_index: int, *, array_to_wasm: bool) -> CodeRange:
        """The trampoline of a type, made when first wanted. `made` has those that there are, by signature."""
        signature = self.engine_code.signatures().shared_type(type_index)
        found = made.get(signature)
        if found is None:
            make = self._compiler.array_to_wasm if array_to_wasm else self._compiler.wasm_to_array
            code = make(type_index)
            with LOCK:
                found = made.get(signature)
                if found is None:
                    piece = self.code.add(self.code.region.reserve(len(code)), code, _NO_ROWS)
                    found = made[signature] = CodeRange(piece.start, piece.length)
        return found

    def growth(self) -> tuple[Growth, bytes, bytes]:
        """What another process needs to go on from here, without what never changes; the text; and the rows of its
        pieces."""
        from array import array

        from wasmforge.runtime.grown_image import Growth

        code = self.code
        growth = Growth()
        growth.entry_size, growth.first_call = entry_size, first_call = self._linkage
        growth.facts = self._compiler.facts()
        with LOCK:
            text = bytes(code.text())
            growth.packed_pieces, rows = code.packed_pieces()
            current = {x: (piece.start, piece.tier) for x, piece in code.current.items()}
            cells = bytes(code.region.counters) if self.tier_up is not None else b""
            shared_type = self.engine_code.signatures().shared_type
            first: dict[int, int] = {shared_type(x): x for x in reversed(range(len(self.info.types)))}
            growth.array_to_wasm, growth.wasm_to_array = (
                tuple((first[signature], *found) for signature, found in made.items())
                for made in (self._array_to_wasm, self._wasm_to_array)
            )
            growth.tier_up_stub = code.region.stub[0] - code.text_address if cells else -1
        slots = array("Q", range(first_call, first_call + entry_size * len(self.info.functions), entry_size))
        optimised = [x for x, (_, tier) in current.items() if tier != BASELINE]
        for x, (start, _) in current.items():
            slots[x] = start
        growth.packed_slots = slots.tobytes()
        growth.packed_cells = TierUp.fresh_cells(cells, optimised)
        growth.capacity = code.region.text_length
        growth.optimised = len(optimised)
        growth.baseline = len(current) - len(optimised)
        return growth, text, rows

    def serialize(self) -> bytes:
        """An image of the module, which is compiled ahead of time for it."""
        return self._compiler.compile_all()

    # --- What there is ------------------------------------------------------------------------------------------

    def function_entry(self, defined: int) -> int:
        return self._linkage[0] * defined

    def function_entries(self, defined: list[int]) -> list[int]:
        size = self._linkage[0]
        return [size * x for x in defined]

    def function_range(self, defined: int) -> CodeRange | None:
        return self.code.function_range(defined)

    def func_name(self, index: int) -> str | None:
        return super().func_name(index) if self._names is None else self._names.get(index)

    def names_section(self) -> bytes:
        """The names of functions, for an image."""
        from wasmforge.compiler.tables import function_names

        return bytes(self.engine_code.func_name_data()) if self._names is None else function_names.encode(self._names)

    def func_by_text_offset(self, text_offset: int) -> int | None:
        return self.code.function_at(text_offset)

    def position_at(self, text_offset: int) -> int | None:
        return self.code.position_at(text_offset) if self.engine.tunables.generate_address_map else None
