"""`VMFunction`, a function of a store as Python sees it, and `VMHostFunction`, the records behind a Python callable
that wasm can call. Instances and the embedder make them; the gates read the records.
"""

from __future__ import annotations

from _struct import Struct
from _weakref import ref

from wasmforge.compiler.environ import (
    CALL_FLAG_RAW,
    CALL_FLAG_RELEASE_GIL,
    HOST_FLAG_CALLER,
    HOST_MAGIC,
    HOST_RESULTS_AWAITED,
    CallDescriptor,
    HostFuncContext,
    VMFuncRef,
)
from wasmforge.runtime.vm.records import FUNC_REF
from wasmforge.syntax.types import NON_NULL, representation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Final

    from wasmforge.runtime.store import VMStore
    from wasmforge.runtime.vm.async_call import AsyncCall
    from wasmforge.syntax.types import FuncType

__all__ = ["VMFunction", "VMHostFunction"]

_DESCRIPTOR: Final = Struct("<QQQQIIIIQ")
_HOST_CONTEXT: Final = Struct("<IIQQQIIQ")
assert FUNC_REF.size == VMFuncRef.SIZE and _DESCRIPTOR.size == CallDescriptor.TYPES
assert _HOST_CONTEXT.size == HostFuncContext.TYPES


class VMFunction:
    """A function value. It keeps its store alive.

    `address` is that of its VMFuncRef: two VMFunctions are equal when it is the same.
    """

    EXTERN_KIND: ClassVar = 0  # ExternKind.FUNC
    __slots__ = ("__weakref__", "_callables", "address", "name", "store", "type")

    def __init__(self, store: VMStore, address: int, function_type: FuncType, name: str) -> None:
        self.store = store
        self.address = address
        self.type = function_type
        self.name = name
        # Weak, since each callable keeps this object: whoever holds one gets the same one again.
        self._callables: dict[tuple[str, bool, bool], ref[Callable[..., Any]]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VMFunction) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __repr__(self) -> str:
        return f"<VMFunction {self.name} {self.type}>"

    @property
    def host_callable(self) -> Callable[..., Any] | None:
        """The Python callable of a host function, None for a wasm function."""
        host = self.store.host_functions.get(self.address)
        return None if host is None else host.callable

    def type_index(self) -> int:
        """The engine-wide index of its type (VMSharedTypeIndex)."""
        return read_func_ref(self.store, self.address)[3]

    def make_callable(
        self, name: str | None = None, *, release_gil: bool | None = None, raw: bool = False, doc: str | None = None
    ) -> Callable[..., Any]:
        """A built-in function object that calls it: the fast way in.

        `name` is what error messages say (the function's own by default); `release_gil` lets other Python threads run
        meanwhile, for 30 ns, which is the default where the store shares a memory with them; with `raw` all values are
        unsigned bit patterns. Its `__self__.owner` is this function, so it keeps the store alive.
        """
        if release_gil is None:
            release_gil = self.store.shares_memory
        key = (name or self.name, release_gil, raw)
        weak = self._callables.get(key)
        found = None if weak is None else weak()
        if found is None:
            flags = (CALL_FLAG_RELEASE_GIL if release_gil else 0) | (CALL_FLAG_RAW if raw else 0)
            descriptor = self.store.call_descriptor(self, key[0], flags)
            found = self.store.engine.gates.make_callable(key[0], descriptor, self, doc)
            if not raw and any(t >= NON_NULL for t in self.type.params):
                found = CheckedCall(self, found).call
            self._callables[key] = ref(found)
        return found

    def async_call(self, *, release_gil: bool | None = None) -> AsyncCall:
        """The function as something whose coroutines run it. `release_gil` as in `make_callable`."""
        from wasmforge.runtime.vm.async_call import AsyncCall

        release = self.store.shares_memory if release_gil is None else release_gil
        return AsyncCall(self, self.name, release)


class CheckedCall:
    """A call of a function with parameters that take not every reference: the gates know only `funcref` and
    `externref`, so they come after these checks. `owner` as in the function objects of the gates."""

    __slots__ = ("__weakref__", "_call", "_checked", "owner")

    def __init__(self, function: VMFunction, call: Callable[..., Any]) -> None:
        self.owner = function
        self._call = call
        self._checked = [(k, t) for k, t in enumerate(function.type.params) if t >= NON_NULL]

    def call(self, *args: object) -> Any:
        check = self.owner.store.check_reference
        for k, t in self._checked:
            if k < len(args):  # the gate says what is missing
                check(t, args[k])
        return self._call(*args)


def make_descriptor(store: VMStore, function: VMFunction, name: str, flags: int) -> int:
    """The address of a new CallDescriptor. The store keeps the function's code and records alive as long as it."""
    arena = store.arena
    array_call, wasm_call, vmctx, _ = read_func_ref(store, function.address)
    params, results = function.type.params, function.type.results
    header = _DESCRIPTOR.pack(
        array_call,
        wasm_call,
        vmctx,
        store.context.address,
        len(params),
        len(results),
        flags,
        max(len(params), len(results)),
        store.c_string(name),
    )
    return arena.allocate_bytes(header + bytes(map(representation, params + results)))


def read_func_ref(store: VMStore, address: int) -> tuple[int, int, int, int]:
    """ARRAY_CALL, WASM_CALL, VMCTX and TYPE_INDEX of a VMFuncRef of the store. Raises ValueError for other
    addresses."""
    fields: tuple[int, int, int, int] = FUNC_REF.unpack(store.arena.view(address, VMFuncRef.SIZE))
    return fields


class VMHostFunction:
    """A Python callable with its HostFuncContext and VMFuncRef, both in the store's arena.

    The store owns it: the context holds a plain pointer to the callable, so neither may go before the other, and
    neither goes before the store, whose tables and instances may hold the VMFuncRef.
    """

    __slots__ = ("callable", "entry", "func_ref", "type")

    def __init__(
        self,
        store: VMStore,
        function_type: FuncType,
        type_index: int,
        callable_: Callable[..., Any],
        entry: Callable[..., Any],
        name: str,
        *,
        caller: bool,
        native: tuple[int, int] | None,
        awaited: bool,
    ) -> None:
        """`entry` is what the gate calls (`callable_` itself, or a wrapper of it). `native`: the address of a stub of
        the gates that is tried before, and of its data. `awaited`: what the callable returns is to be awaited."""
        self.callable = callable_
        self.entry = entry if caller else None
        """What takes the caller's vmctx before the parameters, if it wants it."""
        self.type = function_type
        gates = store.engine.gates
        params, results = function_type.params, function_type.results
        array_call, data = native if native is not None else (gates.host_array_call, 0)
        context = -HostFuncContext.NATIVE + store.arena.allocate_bytes(
            data.to_bytes(-HostFuncContext.NATIVE, "little")
            + _HOST_CONTEXT.pack(
                HOST_MAGIC,
                HOST_FLAG_CALLER if caller else 0,
                store.context.address,
                array_call,
                id(entry),
                len(params),
                len(results) | (HOST_RESULTS_AWAITED if awaited else 0),
                store.c_string(name),
            )
            + bytes(map(representation, params + results))
        )
        store.keep_alive(entry)
        trampoline = store.registry.wasm_to_array_trampoline(type_index) or 0
        self.func_ref = store.arena.allocate_bytes(FUNC_REF.pack(array_call, trampoline, context, type_index))
