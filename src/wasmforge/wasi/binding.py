"""Ties the functions of `preview1` to stores: the definitions that a `Linker` holds, and how a call finds the store's
context and the caller's memory.
"""

from __future__ import annotations

from wasmforge.compiler.environ import WasiCell
from wasmforge.linker import _HostFunction
from wasmforge.runtime.store import instance_of
from wasmforge.store import context, store_data
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import ExternKind
from wasmforge.types import FuncType
from wasmforge.wasi.guest_memory import GuestMemory
from wasmforge.wasi.preview1 import host_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wasmforge.runtime import LinearMemory, VMFunction
    from wasmforge.runtime.vm.records import Arena
    from wasmforge.store import StoreData, Storelike
    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.preview1 import Function

__all__ = ["Definition"]


class Definition(_HostFunction):
    """A function of WASI in a linker; each store makes its own `VMFunction` of it, once."""

    __slots__ = ("row",)

    def __init__(self, row: Function) -> None:
        self.row = row
        self.type = FuncType._wrap(row.type)

    def in_store(self, store: Storelike) -> VMFunction:
        vm = context(store)
        data = store_data(store)
        functions = data.linked_functions
        address = functions.get(self.row)
        if address is not None:
            return vm.function_at(address)
        if data.wasi_locator is None:
            data.wasi_locator = _Locator(data, vm.arena)
        stub = vm.engine.gates.wasi_calls.get(self.row.stub)
        call = host_function(self.row, data.wasi_locator)
        if data.turns is not None and self.row.stub not in _STUBS_FOR_THREADS:
            stub = None
            call = data.turns.around(call)
        function = vm.new_function(
            self.row.type,
            call,
            name=self.row.name,
            caller_vmctx=True,
            native=None if stub is None else (stub, data.wasi_locator.cell),
        )
        functions[self.row] = function.address
        return function


_STUBS_FOR_THREADS: Final = ("clock_time_get", "random_get")
"""Stubs that read nothing which threads of a guest change. The others use descriptors (see `NativeGuest.share`)."""


class _InstanceMemory(GuestMemory):
    """The exported memory of an instance. The base of a linear memory never moves, so only its length is asked."""

    __slots__ = ("linear", "pages")

    def __init__(self, linear: LinearMemory) -> None:
        self.linear = linear
        self.pages = linear.pages
        super().__init__(linear.view())

    def refresh(self) -> None:
        self.pages = self.linear.pages
        self.view = self.linear.view()
        self.length = len(self.view)


class _Locator:
    """How functions of one store find its context, and the memory of the instance that calls. `cell` is the address of
    the store's `WasiCell`, which tells the compiled stubs the same."""

    __slots__ = ("_context", "_data", "_memories", "_words", "cell")

    def __init__(self, data: StoreData, arena: Arena) -> None:
        # Keyed by address: a vmctx lives as long as its store, and this dictionary no longer, so that no other instance
        # can ever have the same one. (A stale entry would give one guest the memory of another.)
        self._memories: dict[int, _InstanceMemory] = {}
        self._data = data
        self._context: WasiContext | None = None  # the one that the cell refers to, which must not go before it
        self.cell = arena.allocate(WasiCell.SIZE)
        self._words = arena.view(self.cell, WasiCell.SIZE).cast("Q")
        data.wasi_changed = self._forget

    def __call__(self, vmctx: int) -> tuple[WasiContext, GuestMemory]:
        memory = self._memories.get(vmctx)
        if memory is None:
            memory = self._memories[vmctx] = _memory_of(vmctx)
        elif memory.pages != memory.linear.pages:
            memory.refresh()
        wasi = self._context
        words = self._words
        if wasi is None or words[0] != vmctx:
            wasi = self._data.wasi
            if wasi is None:
                raise WasmtimeError(
                    "the guest uses WASI, but its store has none: call store.set_wasi(WasiConfig()) first"
                )
            self._context = wasi
            words[WasiCell.MEMORY // 8] = memory.linear.definition
            words[WasiCell.GUEST // 8] = wasi.native.address
            words[WasiCell.CALLER // 8] = vmctx
        return wasi, memory

    def _forget(self) -> None:
        """The store gets another context."""
        self._words[WasiCell.CALLER // 8] = 0
        self._words[WasiCell.GUEST // 8] = 0
        self._context = None


def _memory_of(vmctx: int) -> _InstanceMemory:
    if vmctx:
        record = instance_of(vmctx)
        kind, index = record.module.exports().get("memory", (None, 0))
        if kind == ExternKind.MEMORY:
            return _InstanceMemory(record.memories[index])
    raise WasmtimeError("missing required memory export")
