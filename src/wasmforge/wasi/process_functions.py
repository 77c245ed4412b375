"""WASI preview 1: arguments, environment, clocks, random numbers and the end of the process. Rows of the table in
`preview1.py`; each takes the context, the caller's memory, and the guest's arguments as unsigned numbers.
"""

from __future__ import annotations

import os

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.wasi.abi import U32
from wasmforge.wasi.errno import NOTSUP, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.guest_memory import GuestMemory

RANDOM_CHUNK: Final = 1 << 16
"""Bytes of randomness in flight: a guest that asks for 4 GiB makes the host allocate no more than this, and Ctrl-C
is seen in between."""

FIRST_INVALID_EXIT_STATUS: Final = 126
"""Wasmtime's bound: shells use 126 and above for their own messages."""


def args_get(context: WasiContext, memory: GuestMemory, argv: int, buffer: int) -> None:
    _write_strings(memory, context.args, argv, buffer)


def args_sizes_get(context: WasiContext, memory: GuestMemory, count: int, size: int) -> None:
    memory.write_u32(count, len(context.args))
    memory.write_u32(size, sum(map(len, context.args)))


def environ_get(context: WasiContext, memory: GuestMemory, environ: int, buffer: int) -> None:
    _write_strings(memory, context.env, environ, buffer)


def environ_sizes_get(context: WasiContext, memory: GuestMemory, count: int, size: int) -> None:
    memory.write_u32(count, len(context.env))
    memory.write_u32(size, sum(map(len, context.env)))


def _write_strings(memory: GuestMemory, strings: list[bytes], pointers: int, buffer: int) -> None:
    offsets = []
    offset = buffer
    for string in strings:
        offsets.append(offset)
        offset += len(string)
    memory.write(buffer, b"".join(strings))
    # `buffer + size` fits the memory, so no pointer exceeds 32 bits.
    memory.write_record(pointers, b"".join(map(U32.pack, offsets)), 4)


def clock_res_get(context: WasiContext, memory: GuestMemory, clock: int, result: int) -> None:
    memory.write_u64(result, context.clocks.resolution(clock))


def clock_time_get(context: WasiContext, memory: GuestMemory, clock: int, precision: int, result: int) -> None:
    memory.write_u64(result, context.clocks.now(clock))


def random_get(context: WasiContext, memory: GuestMemory, buffer: int, length: int) -> None:
    view = memory.slice(buffer, length)
    for start in range(0, length, RANDOM_CHUNK):
        part = view[start : start + RANDOM_CHUNK]
        part[:] = context.random(len(part))


def sched_yield(context: WasiContext, memory: GuestMemory) -> None:
    os.sched_yield()


def proc_exit(context: WasiContext, memory: GuestMemory, status: int) -> NoReturn:
    if status >= FIRST_INVALID_EXIT_STATUS:
        error = WasmtimeError("exit with invalid exit status outside of [0..126)")
        error.add_note(f"the status was {status}")
        error.exit_status = status  # type: ignore[attr-defined]  # for `wasmforge.run`, which has no shell to spare
        raise error
    from wasmforge.trap import ExitTrap  # brings the enum module: only programs that exit pay for it

    raise ExitTrap(f"Exited with i32 exit status {status}", status)


def proc_raise(context: WasiContext, memory: GuestMemory, signal: int) -> None:
    raise WasiError(NOTSUP)
