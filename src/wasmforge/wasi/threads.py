"""wasi-threads: the function `"wasi" "thread-spawn"`, by which a guest starts threads over its shared memory. Each is a
thread of Python with a store and an instance of its own; memory and WASI context are shared. It is
`Linker.define_wasi_threads` that makes a `WasiThreads`; the command line and `wasmforge.run` use it.

As the proposal says (github.com/WebAssembly/wasi-threads), the program ends when its main thread returns, when any
thread calls `proc_exit`, or when any thread traps; the others stop then wherever they are.
"""

from __future__ import annotations

import _thread
import atexit
import threading
import time
from _weakref import ref

from wasmforge.func_ import Func
from wasmforge.linker import _HostFunction
from wasmforge.module import export_type
from wasmforge.runtime.deadline import withdraw
from wasmforge.runtime.thread_group import Stopped, ThreadGroup
from wasmforge.runtime.vm.shared_memory import SharedLinearMemory
from wasmforge.store import Store, context, store_data
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import I32, MemoryType
from wasmforge.syntax.types import FuncType as PlainType
from wasmforge.types import FuncType, ValType
from wasmforge.wasi.turns import Turns, share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from wasmforge.func_ import Caller
    from wasmforge.linker import Linker
    from wasmforge.module import Module
    from wasmforge.store import Storelike

__all__ = ["DEFAULT_MAX_THREADS", "WasiThreads"]

DEFAULT_MAX_THREADS: Final = 128
"""Threads besides the main one that live at a time. Each takes a thread of the system, a store and an instance."""

_LAST_ID: Final = 0x1FFF_FFFF
"""The proposal reserves the three highest bits, for the locks of libraries."""

_FAILED: Final = -1
_ENTRY: Final = "wasi_thread_start"
_ENTRY_TYPE: Final = PlainType((I32, I32), ())
_PATIENCE: Final = 0.02
"""Seconds until a thread that has not stopped is told again: a signal may come just before a system call that waits."""
_REMINDERS: Final = 250
"""How often the thread that ended the program tells a main thread that runs no wasm; then it gives up."""


class WasiThreads:
    """The threads of one program, as `Linker.define_wasi_threads` makes it. A context manager around the calls into the
    program; leaving it ends the program: it stops every thread, waits for them, and raises what a thread ended the
    program with, unless the main thread has raised it."""

    def __init__(self, linker: Linker, store: Storelike, module: Module, max_threads: int) -> None:
        if max_threads < 0:
            raise WasmtimeError("max_threads cannot be negative")
        vm = context(store)
        data = store_data(store)
        if vm.engine.tunables.consume_fuel:
            raise WasmtimeError("fuel is counted by store, and each thread has its own: use no Config.consume_fuel")
        if data.turns is not None or data.wasi_locator is not None:
            raise WasmtimeError("the store has been used for a program with WASI already: threads need a new one")
        if vm.limits.memory_size is not None and module._open().info.memories:
            # Threat: every thread would have them, each as large as the limit allows.
            raise WasmtimeError("the module defines memories of its own, so that threads exceed a limit on memory")
        self._module = module
        self._has_entry = _has_entry(module)
        self._closing = threading.Event()
        self._linker: Linker | None = linker
        self._max_threads = max_threads
        self._lock = _thread.allocate_lock()
        self._threads: dict[int, threading.Thread] = {}
        self._last_id = 0
        self._group = ThreadGroup()
        self._turns = Turns(self._group)
        self._define_memories()
        linker._insert("wasi", "thread-spawn", _HostFunction(_spawn_type(), self._spawn, access_caller=True))
        data.turns = self._turns
        if data.wasi is not None:
            share(data.wasi)
        self._main_id = vm.id
        self._group.add(vm)
        self._before = self._group.enter()
        # A thread in an endless loop would keep the interpreter from ending; one of a guest that nobody closed.
        this = ref(self)
        self._at_exit = lambda: _close(this)
        atexit.register(self._at_exit)

    def _define_memories(self) -> None:
        """The shared memories that the module imports and nobody has defined, as Wasmtime's command line makes them."""
        assert self._linker is not None
        compiled = self._module._open()
        found = False
        for wanted in compiled.info.imports:
            ty = wanted.type
            if not isinstance(ty, MemoryType) or not ty.shared:
                continue
            found = True
            if (wanted.module, wanted.name) not in self._linker._definitions:
                memory = SharedLinearMemory(self._linker.engine._state, ty)
                self._linker._insert(wanted.module, wanted.name, memory)
        if not found:
            raise WasmtimeError("the module imports no shared memory, which threads need: link it with --import-memory")

    def __enter__(self) -> WasiThreads:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        end = self._finish()
        if error is None and end is not None:
            raise end

    def __len__(self) -> int:
        """How many threads live, without the main one."""
        return len(self._threads)

    def close(self) -> None:
        """End the program: every thread stops wherever it is. A thread that is in a Python function of the embedder
        stops when that returns."""
        self._finish()

    def _finish(self) -> BaseException | None:
        """`close`. Returns what a thread ended the program with."""
        group = self._group
        if group.closed:
            return None
        self._closing.set()
        group.end(None)
        with self._lock:  # whoever spawns later sees the end
            threads = list(self._threads.items())
        for number, thread in threads:
            while thread.is_alive() or number in self._threads:
                group.interrupt()
                if thread.ident is None:  # another thread is about to start it
                    time.sleep(_PATIENCE)
                else:
                    thread.join(_PATIENCE)
        group.closed = True
        group.leave(self._before)
        group.remove(self._main_id)
        withdraw(self._main_id)
        # What the store's functions lead to, this object too, must not lead back to it; a traceback does.
        error, group.error = group.error, None
        self._linker = None
        self._before = None
        atexit.unregister(self._at_exit)
        return error

    # --- A thread -------------------------------------------------------------------------------------------

    def _spawn(self, caller: Caller, argument: int) -> int:
        """`thread-spawn`: the number of the new thread, or a negative number.

        Threat: a guest may spawn for ever. What it can have at a time is limited, and so is what one more costs.
        """
        group = self._group
        linker = self._linker
        if linker is None or not self._has_entry:
            return _FAILED
        with self._lock:
            if group.ended or len(self._threads) >= self._max_threads:
                return _FAILED
            number = self._next_id()
            store = self._new_store(caller)
            thread = threading.Thread(
                target=self._run, args=(number, argument, store), name=f"wasi-{number}", daemon=True
            )
            self._threads[number] = thread
        try:
            thread.start()
        except RuntimeError:  # the system has no thread left
            with self._lock:
                del self._threads[number]
            return _FAILED
        return number

    def _new_store(self, parent: Caller) -> Store:
        """A store for a thread, with the limits, the data and the WASI context of the one that spawns it."""
        data = store_data(parent)
        vm = parent._context()
        store = Store(data.engine, data.data)
        own = store._context()
        own.limits = vm.limits
        if own.engine.tunables.epoch_interruption:
            own.budget.inherit(vm.budget)
        store_data(store).turns = self._turns
        store_data(store).wasi = data.wasi
        return store

    def _next_id(self) -> int:
        number = self._last_id
        while True:
            number = number % _LAST_ID + 1
            if number not in self._threads:
                self._last_id = number
                return number

    def _run(self, number: int, argument: int, store: Store) -> None:
        """A thread from its beginning to its end."""
        group = self._group
        group.enter(spawned=True)
        store_id = store._context().id
        try:
            if group.add(store._context()):
                self._call_guest(number, argument, store)
        except Stopped:
            pass
        except BaseException as error:
            # Its frames would keep the store of this thread alive for as long as the embedder keeps the error.
            if group.end(error.with_traceback(None)):
                self._remind()
        finally:
            group.remove(store_id)
            withdraw(store_id)
            store.close()
            with self._lock:
                del self._threads[number]

    def _call_guest(self, number: int, argument: int, store: Store) -> None:
        linker = self._linker
        assert linker is not None  # `close` waits for this thread
        entry = linker.instantiate(store, self._module).exports(store)[_ENTRY]
        assert isinstance(entry, Func)
        entry(store, number, argument)

    def _remind(self) -> None:
        """Tells the main thread again and again that this thread has ended the program."""
        for _ in range(_REMINDERS):
            if self._closing.wait(_PATIENCE):
                return
            self._group.interrupt()


def _spawn_type() -> FuncType:
    return FuncType([ValType.i32()], [ValType.i32()])


def _has_entry(module: Module) -> bool:
    compiled = module._open()
    for k, export in enumerate(compiled.info.exports):
        if export.name == _ENTRY:
            ty = export_type(compiled, k)
            return isinstance(ty, FuncType) and ty._type == _ENTRY_TYPE
    return False


def _close(threads: Any) -> None:
    found = threads()
    if found is not None:
        found.close()
