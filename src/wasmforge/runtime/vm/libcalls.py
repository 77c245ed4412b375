"""The builtins that are Python functions (`environ.BUILTINS` without `native`). Compiled code calls them through stubs
of the gates, which pass the address of the calling instance's vmctx and the arguments as unsigned integers.
"""

from __future__ import annotations

from wasmforge.runtime.store import instance_of, store_of_id
from wasmforge.runtime.vm.instance import NO_WORDS
from wasmforge.runtime.vm.traps import memory_out_of_bounds, trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from wasmforge.runtime.vm.memory import LinearMemory

__all__ = ["BUILTIN_FUNCTIONS"]


def _memory_grow(vmctx: int, delta: int, memory: int) -> int:
    """memory.grow: pages -> the old size or -1."""
    old = instance_of(vmctx).memories[memory].grow(delta)
    return _grow_failed(vmctx, "memory") if old < 0 else old


def _table_grow(vmctx: int, table: int, delta: int, word: int) -> int:
    """table.grow: elements and their initial word -> the old size or -1."""
    old = instance_of(vmctx).tables[table].grow_raw(delta, word)
    return _grow_failed(vmctx, "table") if old < 0 else old


def _grow_failed(vmctx: int, kind: str) -> int:
    """What the guest sees: -1, unless its store wants its end."""
    if store_of_id(instance_of(vmctx).store_id).limits.trap_on_grow_failure:
        from wasmforge.syntax.errors import WasmtimeError

        raise WasmtimeError(f"forcing a {kind} growth failure to be a trap")
    return -1


def _table_fill(vmctx: int, table: int, start: int, word: int, count: int) -> None:
    """table.fill; traps out of bounds."""
    instance_of(vmctx).tables[table].fill_raw(start, word, count)


def _table_init(vmctx: int, table: int, segment: int, target: int, source: int, count: int) -> None:
    """table.init; traps when the segment, which is empty once dropped, or the table is too short."""
    record = instance_of(vmctx)
    record.tables[table].init_raw(target, record.segments[segment], source, count)


def _elem_drop(vmctx: int, segment: int) -> None:
    """elem.drop."""
    instance_of(vmctx).segments[segment] = NO_WORDS


def _compile_function(vmctx: int, defined: int) -> int:
    """The first call of a function: the address of its code. Raises what the compiler raises."""
    return instance_of(vmctx).module.compiled_function(defined)


def _out_of_fuel(vmctx: int) -> object:
    """The count of fuel has reached 0: gives compiled code the next part of it, or traps. In an asynchronous call that
    shall yield, what to await before."""
    store = store_of_id(instance_of(vmctx).store_id)
    budget = store.budget
    if not budget.refill():
        from wasmforge.compiler.trap import TrapKind

        raise trap(TrapKind.OUT_OF_FUEL)
    return _yield() if budget.fuel_interval is not None and store.context.can_suspend() else None


def _new_epoch(vmctx: int) -> object:
    """The deadline has passed: sets another, or traps. In an asynchronous call that shall yield, what to await
    before. (Synchronous calls cannot wait and just go on.)"""
    store = store_of_id(instance_of(vmctx).store_id)
    budget = store.budget
    ticks = budget.extension()
    if ticks is None:
        from wasmforge.compiler.trap import TrapKind

        raise trap(TrapKind.INTERRUPT)
    if not (budget.epoch_yields and store.context.can_suspend()):
        budget.set_deadline(ticks)
        return None
    # Counted from when it goes on: while the others run, epochs pass, and a deadline that was set before would be over
    # by then, so that of several guests that never wait only one would ever get anywhere.
    return _yield(lambda: budget.set_deadline(ticks))


def _yield(then: Callable[[], None] | None = None) -> object:
    from wasmforge.runtime.vm.async_call import YieldToLoop  # asynchronous calls have loaded it

    return YieldToLoop(then)


def _tier_up(vmctx: int, defined: int) -> None:
    """A function has counted to its end."""
    instance_of(vmctx).module.function_is_hot(defined)


def _atomic_address(memory: LinearMemory, index: int, offset: int) -> int:
    """The effective address. One beyond the index space is out of bounds before it is not aligned, as in Wasmtime."""
    address = index + offset
    if address >> (64 if memory.declared_type.is_64 else 32):
        raise memory_out_of_bounds()
    return address


def _memory_atomic_notify(vmctx: int, index: int, count: int, offset: int, memory: int) -> int:
    """memory.atomic.notify -> how many threads were woken; traps."""
    from wasmforge.runtime.vm.shared_memory import SharedMemoryView, check_atomic_address

    found = instance_of(vmctx).memories[memory]
    address = _atomic_address(found, index, offset)
    if isinstance(found, SharedMemoryView):
        return found.shared.notify(address, count)
    check_atomic_address(address, 4, found.byte_length)
    return 0  # nobody can wait


def _memory_atomic_wait(vmctx: int, index: int, expected: bytes, timeout: int, offset: int, memory: int) -> int:
    """memory.atomic.wait32 and wait64 -> 0 woken, 1 another value, 2 timed out; traps. `timeout` are the nanoseconds as
    an unsigned number; negative ones wait for ever."""
    from wasmforge.runtime.vm.shared_memory import SharedMemoryView, check_atomic_address

    found = instance_of(vmctx).memories[memory]
    address = _atomic_address(found, index, offset)
    if isinstance(found, SharedMemoryView):
        return found.shared.wait(address, expected, None if timeout >> 63 else timeout)
    check_atomic_address(address, len(expected), found.byte_length)
    from wasmforge.compiler.trap import TrapKind

    raise trap(TrapKind.ATOMIC_WAIT_NON_SHARED_MEMORY)


def _memory_atomic_wait32(vmctx: int, index: int, expected: int, timeout: int, offset: int, memory: int) -> int:
    return _memory_atomic_wait(vmctx, index, expected.to_bytes(4, "little"), timeout, offset, memory)


def _memory_atomic_wait64(vmctx: int, index: int, expected: int, timeout: int, offset: int, memory: int) -> int:
    return _memory_atomic_wait(vmctx, index, expected.to_bytes(8, "little"), timeout, offset, memory)


BUILTIN_FUNCTIONS: Final[dict[str, Callable[..., object]]] = {
    "memory_grow": _memory_grow,
    "table_grow": _table_grow,
    "table_fill": _table_fill,
    "table_init": _table_init,
    "elem_drop": _elem_drop,
    "compile_function": _compile_function,
    "out_of_fuel": _out_of_fuel,
    "new_epoch": _new_epoch,
    "tier_up": _tier_up,
    "memory_atomic_notify": _memory_atomic_notify,
    "memory_atomic_wait32": _memory_atomic_wait32,
    "memory_atomic_wait64": _memory_atomic_wait64,
}
