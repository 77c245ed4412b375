"""Ties the functions of `preview1` to stores: the definitions that a `Linker` holds, and how a call finds the store's
context and the caller's memory.
"""

from __future__ import annotations

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
    from wasmforge.runtime import LinearMemory, VMFunction
    from wasmforge.store import StoreData, Storelike
    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.preview1 import Function, Locate

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
        implementation = host_function(self.row, _locator(data))
        function = vm.new_function(self.row.type, implementation, name=self.row.name, caller_vmctx=True)
        functions[self.row] = function.address
        return function


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


def _locator(data: StoreData) -> Locate:
    """How functions of one store find its context, and the memory of the instance that calls."""
    # Keyed by address: a vmctx lives as long as its store, and this dictionary no longer, so that no other instance can
    # ever have the same one. (A stale entry would give one guest the memory of another.)
    memories: dict[int, _InstanceMemory] = {}

    def locate(vmctx: int) -> tuple[WasiContext, GuestMemory]:
        memory = memories.get(vmctx)
        if memory is None:
            memory = memories[vmctx] = _memory_of(vmctx)
        elif memory.pages != memory.linear.pages:
            memory.refresh()
        wasi = data.wasi
        if wasi is None:
            raise WasmtimeError("the guest uses WASI, but its store has none: call store.set_wasi(WasiConfig()) first")
        return wasi, memory

    return locate


def _memory_of(vmctx: int) -> _InstanceMemory:
    if vmctx:
        record = instance_of(vmctx)
        kind, index = record.module.exports().get("memory", (None, 0))
        if kind == ExternKind.MEMORY:
            return _InstanceMemory(record.memories[index])
    raise WasmtimeError("missing required memory export")
