"""Ties the functions of `preview1` to stores: the definitions that a `Linker` holds, and how a call finds the store's
context and the caller's memory.
"""

from __future__ import annotations

from wasmforge.func import weak_store
from wasmforge.linker import _HostFunction
from wasmforge.runtime import LinearMemory
from wasmforge.store import context, store_data
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.types import FuncType
from wasmforge.wasi.guest_memory import GuestMemory
from wasmforge.wasi.preview1 import host_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasmforge.runtime import VMFunction, VMInstance, VMStore
    from wasmforge.store import Storelike
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
        functions = store_data(store).linked_functions
        function = functions.get(self.row)
        if function is None:
            vm = context(store)
            implementation = host_function(self.row, _locator(vm))
            function = vm.new_function(self.row.type, implementation, name=self.row.name, caller=True)
            functions[self.row] = function
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


def _locator(vm: VMStore) -> Locate:
    vm_ref = weak_store(vm)  # a store holds its functions: a reference back would be a cycle
    # Keyed by identity: an instance lives as long as its store, and this dictionary no longer, so that no other
    # instance can ever have the same id. (A stale entry would give one guest the memory of another.)
    memories: dict[int, _InstanceMemory] = {}

    def locate(instance: VMInstance | None) -> tuple[WasiContext, GuestMemory]:
        memory = memories.get(id(instance))
        if memory is None:
            memory = memories[id(instance)] = _memory_of(instance)
        elif memory.pages != memory.linear.pages:
            memory.refresh()
        wasi: WasiContext | None = vm_ref().embedder_data.wasi  # type: ignore[attr-defined]
        if wasi is None:
            raise WasmtimeError("the guest uses WASI, but its store has none: call store.set_wasi(WasiConfig()) first")
        return wasi, memory

    return locate


def _memory_of(instance: VMInstance | None) -> _InstanceMemory:
    memory = None if instance is None else instance.export("memory")
    if not isinstance(memory, LinearMemory):
        raise WasmtimeError("missing required memory export")
    return _InstanceMemory(memory)
