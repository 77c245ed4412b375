"""The Python side of the gates: one `Gates` object a process, which the runtime asks for addresses, callables,
registrations and hooks. Everything hot happens in the machine code; nothing here is called on the way of a wasm call.
"""

from __future__ import annotations

import _thread
import os

from wasmforge.compiler.environ import BUILTIN_INDEX, BUILTINS
from wasmforge.runtime.lock import LOCK
from wasmforge.runtime.native.loader import load
from wasmforge.runtime.native.objects import int_tags
from wasmforge.runtime.native.signals import KNOWN_FAULTS_LOG2, RangeTable, SignalHooks
from wasmforge.runtime.native.threads import ThreadSetup
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable, Sequence
    from typing import Any, Final
else:
    from wasmforge.runtime import ffi as ctypes

__all__ = ["CallTarget", "Gates", "gates"]

_METH_NOARGS: Final = 0x04
_METH_O: Final = 0x08
_METH_FASTCALL: Final = 0x80

TRAP_ATTRIBUTE: Final = "_wasmforge_backtrace"
"""Of a trap, see `Gates.set_trap_class`."""

_KNOWN_FAULTS_SIZE: Final = 16 << KNOWN_FAULTS_LOG2
_TP_NEW: Final = 65  # Py_tp_new, CPython's typeslots.h

STOP_SLOTS: Final = 65536
"""Threads with deadlines at a time."""


class _MethodDefinition(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


class CallTarget(int):
    """`__self__` of a callable export: the address of its CallDescriptor, and what keeps that alive."""

    owner: object
    async_call: Any = None
    """Of the embedder: how the same function is called asynchronously."""
    _definition: _MethodDefinition


class Gates:
    """The gates of this process. Get it from `gates()`."""

    def __init__(self) -> None:
        image = load()
        # Reentrant: a garbage collection while it is held may run finalisers that unregister ranges.
        self._lock = LOCK
        self._image = image
        self.universal_call = image.address("universal_call")
        """Address of the METH_FASTCALL function."""
        self.host_array_call = image.address("host_array_call")
        """Address of the array call of every host function."""
        self._builtin_array = (ctypes.c_uint64 * len(BUILTINS))(*(image.address(f"builtin_{b.name}") for b in BUILTINS))
        self.builtins = ctypes.addressof(self._builtin_array)
        """Address of the table of builtins that `VMContextOffsets.BUILTINS` points to."""
        self.wasi_calls = {name.removeprefix("wasi_stub_"): image.address(name) for name in image.symbols("wasi_stub_")}
        """Addresses of the array calls of WASI functions that have a stub, by name."""
        self._references: list[object] = []
        self._tell_int_layout()
        self._code = self._range_table("code_ranges")
        self._memories = self._range_table("memory_ranges")
        self._threads = ThreadSetup(image)
        self._set_hook("hook_new_thread", self._threads.prepare)
        self._new_function = ctypes.pythonapi.PyCFunction_NewEx
        self._new_function.restype = ctypes.py_object
        self._new_function.argtypes = (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
        self._lost_definition = _MethodDefinition(b"hooks_lost", image.address("hooks_lost"), _METH_NOARGS, None)
        self._signals = SignalHooks(image, self._new_function(ctypes.addressof(self._lost_definition), None, None))
        known_faults = (ctypes.c_ubyte * _KNOWN_FAULTS_SIZE).from_address(image.address("known_faults"))
        self._known_faults = memoryview(known_faults).cast("B")
        self._stop_slots: ctypes.Array[ctypes.c_uint64] | None = None
        os.register_at_fork(after_in_child=self._after_fork_in_child)

    def _tell_int_layout(self) -> None:
        tags = int_tags()
        if tags is not None:
            positive, negative = tags
            ctypes.c_uint64.from_address(self._image.address("int_tag_positive")).value = positive
            ctypes.c_uint64.from_address(self._image.address("int_tag_negative")).value = negative
            ctypes.c_uint32.from_address(self._image.address("int_layout")).value = 1

    def _after_fork_in_child(self) -> None:
        self._threads.after_fork_in_child()

    def _range_table(self, symbol: str) -> RangeTable:
        address = self._reserve(RangeTable.SIZE)
        ctypes.c_uint64.from_address(self._image.address(symbol)).value = address
        return RangeTable(address)

    @staticmethod
    def _reserve(size: int) -> int:
        """Zeros for ever. Address space only: a page is used when it is written."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
        address: int | None = libc.mmap(None, size, 3, 0x2 | 0x20 | 0x4000, -1, 0)
        if address is None or address == 2**64 - 1:
            raise WasmtimeError("no memory for the tables of the gates")
        return address

    def make_callable(
        self, name: str, descriptor: int, keep_alive: object, doc: str | None = None
    ) -> Callable[..., Any]:
        """A built-in function object that calls wasm.

        `descriptor`: address of a CallDescriptor, which must live as long as `keep_alive`. Arguments are checked
        against its types: TypeError for a wrong count or type, OverflowError for an integer out of range. Returns
        None, a value or a list. The function's `__self__.owner` is `keep_alive`.
        """
        self.hook_signals()
        return self._function(name, self.universal_call, _METH_FASTCALL, descriptor, keep_alive, doc)

    def make_async_callables(
        self, name: str, descriptor: int, context: int, keep_alive: object
    ) -> tuple[Callable[..., Any], Callable[[object], Any], Callable[[BaseException], Any]]:
        """The three functions that an asynchronous call is made of: the first starts it with an object, whose id is
        ASYNC_OWNER until the next call, and its arguments; the others resume it with what an awaitable gave or raised.
        Each returns the call's result in a tuple, or the awaitable for which it is suspended now.

        `descriptor` as in `make_callable`; `context`: address of the store context.
        """
        self.hook_signals()
        address = self._image.address
        return (
            self._function(name, address("async_call"), _METH_FASTCALL, descriptor, keep_alive),
            self._function("resume", address("async_resume"), _METH_O, context, keep_alive),
            self._function("throw", address("async_throw"), _METH_O, context, keep_alive),
        )

    def _function(
        self, name: str, code: int, flags: int, address: int, keep_alive: object, doc: str | None = None
    ) -> Callable[..., Any]:
        """A built-in function object whose `__self__` is an address that `keep_alive` keeps valid."""
        target = CallTarget(address)
        target.owner = keep_alive
        target._definition = _MethodDefinition(
            name.encode(errors="replace").replace(b"\0", b"?"), code, flags, None if doc is None else doc.encode()
        )
        function: Callable[..., Any] = self._new_function(ctypes.addressof(target._definition), target, None)
        return function

    def set_builtin(self, name: str, function: Callable[..., object]) -> None:
        """Sets the Python function behind a builtin of `environ.BUILTINS` that is not native; arguments: see there. It
        returns an int or None; one that keeps registers None, or an awaitable in an asynchronous call."""
        index = BUILTIN_INDEX[name]
        if BUILTINS[index].native:
            raise WasmtimeError(f"the builtin {name} is part of the gates")
        self._set_pointer(self._image.address("builtin_callables") + 8 * index, name, function)

    def set_hooks(
        self,
        *,
        on_first_trap: Callable[[], None] | None = None,
        on_fault: Callable[[int], int] | None = None,
        on_exception: Callable[[int, BaseException, tuple[int, ...], int], None] | None = None,
        on_stop: Callable[[int], None] | None = None,
        on_async_misuse: Callable[[int, int, object], None] | None = None,
        box_ref: Callable[[int, int, int], object] | None = None,
        unbox_ref: Callable[[int, int, Any], int] | None = None,
        result_error: type[TypeError] | None = None,
    ) -> None:
        """Sets the functions that the gates call (parameters: the room's docstring). None leaves one as it is."""
        hooks: dict[str, Callable[..., object] | None] = {
            "hook_on_first_trap": on_first_trap,
            "hook_on_fault": on_fault,
            "hook_on_exception": on_exception,
            "hook_on_stop": on_stop,
            "hook_on_async_misuse": on_async_misuse,
            "hook_box_ref": box_ref,
            "hook_unbox_ref": unbox_ref,
            "hook_result_error": result_error,
        }
        for symbol, function in hooks.items():
            if function is not None:
                self._set_hook(symbol, function)

    def set_trap_class(self, trap_class: type[BaseException] | None, messages: Sequence[str] = ()) -> None:
        """What traps are from now on: `trap_class.__new__(trap_class, message)` with the message of their kind, without
        `__init__`. The attribute TRAP_ATTRIBUTE is set to a pair: the object that OWNER of the store context names (or
        None), and the bytes of a trap record. None: the next trap asks the hook on_first_trap."""
        address = self._image.address
        if trap_class is None:
            ctypes.c_void_p.from_address(address("trap_class")).value = None
            return
        slot = ctypes.pythonapi.PyType_GetSlot
        slot.restype = ctypes.c_void_p
        slot.argtypes = (ctypes.py_object, ctypes.c_int)
        for kind, message in enumerate(messages):
            self._set_object(address("trap_arguments") + 8 * kind, (message,))
        self._set_object(address("trap_attribute"), TRAP_ATTRIBUTE)
        ctypes.c_void_p.from_address(address("trap_new")).value = slot(trap_class, _TP_NEW)
        self._set_object(address("trap_class"), trap_class)

    def forget_faults(self) -> None:
        """Forgets which instructions may fault: code goes, and other code may get its addresses."""
        self._known_faults[:] = bytes(_KNOWN_FAULTS_SIZE)

    def _set_hook(self, symbol: str, function: Callable[..., object]) -> None:
        self._set_pointer(self._image.address(symbol), symbol, function)

    def _set_pointer(self, address: int, name: str, function: Callable[..., object]) -> None:
        if not callable(function):
            raise TypeError(f"{name} must be callable, got {type(function).__name__}")
        self._set_object(address, function)

    def _set_object(self, address: int, value: object) -> None:
        with self._lock:
            # The old function may be running on another thread, and the gates own no reference: keep it for ever.
            self._references.append(value)
            ctypes.c_void_p.from_address(address).value = id(value)

    def register_code(self, start: int, end: int) -> None:
        """Makes [start, end) wasm code: faults there may be traps, and interrupts are injected there.

        Raises WasmtimeError when `start` is registered already.
        """
        with self._lock:
            self._code.add(start, end)

    def unregister_code(self, start: int) -> None:
        """Takes back `register_code`. No frame may be left in that code. Raises WasmtimeError when not registered."""
        with self._lock:
            self._code.remove(start)

    def register_memory(self, start: int, end: int, definition: int = 0) -> None:
        """Makes faults of wasm code in [start, end), a memory's whole reservation, out-of-bounds traps. They tell base
        and length of the memory from the VMMemoryDefinition at `definition`, which must stay until the range is
        unregistered."""
        with self._lock:
            self._memories.add(start, end, definition)

    def unregister_memory(self, start: int) -> None:
        """Takes back `register_memory`; call it before unmapping. Raises WasmtimeError when it is not registered."""
        with self._lock:
            self._memories.remove(start)

    def hook_signals(self) -> None:
        """Puts our signal handlers in front of everybody else's. Cheap when they are there already.

        The runtime calls it for every callable and before a start function, because faulthandler.enable(),
        signal.signal(SIGINT, ...) and asyncio.run() install handlers of their own. Until this is called again, Ctrl-C
        cannot interrupt a wasm loop after signal.signal, and a trap looks like a crash after faulthandler.enable().
        """
        if self._signals.lost():
            with self._lock:
                self._signals.hook()

    def hook_stop(self) -> None:
        """Puts the handler of the signal that ends deadlines in front; a microsecond when it is there."""
        with self._lock:
            self._signals.hook_stop()

    def stop_slots(self) -> ctypes.Array[ctypes.c_uint64]:
        """The words that timers point to, one a thread with a deadline: the address of the store context to stop, or
        0. Mapped at the first call, and never freed, since a signal may be under way."""
        if self._stop_slots is None:
            address = self._reserve(8 * STOP_SLOTS)
            self._stop_slots = (ctypes.c_uint64 * STOP_SLOTS).from_address(address)
            ctypes.c_uint64.from_address(self._image.address("stop_slots_size")).value = 8 * STOP_SLOTS
            ctypes.c_uint64.from_address(self._image.address("stop_slots")).value = address
        return self._stop_slots


_gates: Gates | None = None
_gates_lock = _thread.allocate_lock()


def gates() -> Gates:
    """The gates of this process; the first call maps them, and builds them if no image is found.

    Raises WasmtimeError when that is impossible (no llvmlite and no image, no executable memory).
    """
    global _gates
    if _gates is None:
        with _gates_lock:
            if _gates is None:
                created = Gates()
                created.hook_signals()
                _gates = created
    return _gates
