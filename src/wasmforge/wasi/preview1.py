"""The module `wasi_snapshot_preview1`: one table of its functions, and what binds a row to a store. `Linker`
defines them by `add_to_linker`; the functions themselves are in the files named in the table.

A row is called with the caller and the guest's values, which arrive signed. The binding reduces them to the unsigned
numbers that the specification means, finds the caller's memory and the store's context, and turns what the function
raises into an errno. Whatever is no errno (a pointer out of bounds, `proc_exit`, Ctrl-C, an exception of an
embedder's callback) passes through and unwinds the guest.
"""

from __future__ import annotations

from _operator import and_

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.types import I32, I64, FuncType
from wasmforge.wasi import abi, fd_functions, path_functions, poll_function, process_functions
from wasmforge.wasi.errno import WasiError, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from wasmforge.linker import Linker
    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.guest_memory import GuestMemory

    Implementation = Callable[..., None]
    Locate = Callable[[Any], tuple[WasiContext, GuestMemory]]
    Maker = Callable[[Implementation, tuple[int, ...], Locate], Callable[..., int]]

__all__ = ["FUNCTIONS", "MODULE_NAME", "Function", "add_to_linker", "host_function"]

MODULE_NAME: Final = "wasi_snapshot_preview1"

_U32 = 0xFFFF_FFFF
_U64 = 0xFFFF_FFFF_FFFF_FFFF
_SIGNED = -1

_PARAMETERS: Final = {
    # type of the witx file: wasm type, mask, largest value or all flags (None: any), name in error messages
    "u32": (I32, _U32, None, ""),
    "u64": (I64, _U64, None, ""),
    "s64": (I64, _SIGNED, None, ""),
    "whence": (I32, _U32, abi.WHENCE_END, "enum value Whence"),
    "advice": (I32, _U32, abi.ADVICE_LAST, "enum value Advice"),
    "lookupflags": (I32, _U32, abi.LOOKUP_ALL, "flag value Lookupflags"),
    "oflags": (I32, _U32, abi.OFLAGS_ALL, "flag value Oflags"),
    "fdflags": (I32, _U32, abi.FDFLAGS_ALL, "flag value Fdflags"),
    "fstflags": (I32, _U32, abi.FSTFLAGS_ALL, "flag value Fstflags"),
    "riflags": (I32, _U32, abi.RIFLAGS_ALL, "flag value Riflags"),
    "sdflags": (I32, _U32, abi.SDFLAGS_ALL, "flag value Sdflags"),
}
"""All flags are low bits without gaps, so that "no unknown flag" and "no unknown value" are both `value <= largest`."""


class Function:
    """A row: the function's name, its type, and what implements it."""

    __slots__ = ("checks", "implementation", "masks", "name", "stub", "type")

    def __init__(self, name: str, parameters: str, implementation: Implementation, returns: bool = True) -> None:
        rows = [_PARAMETERS[p] for p in parameters.split()]
        self.name = name
        self.type = FuncType(tuple(row[0] for row in rows), (I32,) if returns else ())
        self.masks = tuple(row[1] for row in rows)
        self.checks = tuple((i, row[2], row[3]) for i, row in enumerate(rows) if row[2] is not None)
        self.implementation = implementation
        self.stub = name  # the compiled stub that does the same, if there is one of that name

    def replaced(self, implementation: Implementation) -> Function:
        """The same function implemented otherwise."""
        other = object.__new__(Function)
        other.name, other.type, other.masks, other.checks = self.name, self.type, self.masks, self.checks
        other.implementation = implementation
        other.stub = ""
        return other


_FD = fd_functions
_PATH = path_functions
_PROCESS = process_functions

FUNCTIONS: Final = (
    Function("args_get", "u32 u32", _PROCESS.args_get),
    Function("args_sizes_get", "u32 u32", _PROCESS.args_sizes_get),
    Function("environ_get", "u32 u32", _PROCESS.environ_get),
    Function("environ_sizes_get", "u32 u32", _PROCESS.environ_sizes_get),
    Function("clock_res_get", "u32 u32", _PROCESS.clock_res_get),
    Function("clock_time_get", "u32 u64 u32", _PROCESS.clock_time_get),
    Function("fd_advise", "u32 u64 u64 advice", _FD.fd_advise),
    Function("fd_allocate", "u32 u64 u64", _FD.fd_allocate),
    Function("fd_close", "u32", _FD.fd_close),
    Function("fd_datasync", "u32", _FD.fd_datasync),
    Function("fd_fdstat_get", "u32 u32", _FD.fd_fdstat_get),
    Function("fd_fdstat_set_flags", "u32 fdflags", _FD.fd_fdstat_set_flags),
    Function("fd_fdstat_set_rights", "u32 u64 u64", _FD.fd_fdstat_set_rights),
    Function("fd_filestat_get", "u32 u32", _FD.fd_filestat_get),
    Function("fd_filestat_set_size", "u32 u64", _FD.fd_filestat_set_size),
    Function("fd_filestat_set_times", "u32 u64 u64 fstflags", _FD.fd_filestat_set_times),
    Function("fd_pread", "u32 u32 u32 u64 u32", _FD.fd_pread),
    Function("fd_prestat_get", "u32 u32", _FD.fd_prestat_get),
    Function("fd_prestat_dir_name", "u32 u32 u32", _FD.fd_prestat_dir_name),
    Function("fd_pwrite", "u32 u32 u32 u64 u32", _FD.fd_pwrite),
    Function("fd_read", "u32 u32 u32 u32", _FD.fd_read),
    Function("fd_readdir", "u32 u32 u32 u64 u32", _FD.fd_readdir),
    Function("fd_renumber", "u32 u32", _FD.fd_renumber),
    Function("fd_seek", "u32 s64 whence u32", _FD.fd_seek),
    Function("fd_sync", "u32", _FD.fd_sync),
    Function("fd_tell", "u32 u32", _FD.fd_tell),
    Function("fd_write", "u32 u32 u32 u32", _FD.fd_write),
    Function("path_create_directory", "u32 u32 u32", _PATH.path_create_directory),
    Function("path_filestat_get", "u32 lookupflags u32 u32 u32", _PATH.path_filestat_get),
    Function("path_filestat_set_times", "u32 lookupflags u32 u32 u64 u64 fstflags", _PATH.path_filestat_set_times),
    Function("path_link", "u32 lookupflags u32 u32 u32 u32 u32", _PATH.path_link),
    Function("path_open", "u32 lookupflags u32 u32 oflags u64 u64 fdflags u32", _PATH.path_open),
    Function("path_readlink", "u32 u32 u32 u32 u32 u32", _PATH.path_readlink),
    Function("path_remove_directory", "u32 u32 u32", _PATH.path_remove_directory),
    Function("path_rename", "u32 u32 u32 u32 u32 u32", _PATH.path_rename),
    Function("path_symlink", "u32 u32 u32 u32 u32", _PATH.path_symlink),
    Function("path_unlink_file", "u32 u32 u32", _PATH.path_unlink_file),
    Function("poll_oneoff", "u32 u32 u32 u32", poll_function.poll_oneoff),
    Function("proc_exit", "u32", _PROCESS.proc_exit, returns=False),
    Function("proc_raise", "u32", _PROCESS.proc_raise),
    Function("sched_yield", "", _PROCESS.sched_yield),
    Function("random_get", "u32 u32", _PROCESS.random_get),
    Function("sock_accept", "u32 fdflags u32", _FD.sock_accept),
    Function("sock_recv", "u32 u32 u32 riflags u32 u32", _FD.sock_recv),
    Function("sock_send", "u32 u32 u32 u32 u32", _FD.sock_send),
    Function("sock_shutdown", "u32 sdflags", _FD.sock_shutdown),
)


def host_function(row: Function, locate: Locate) -> Callable[..., int]:
    """What the guest calls: `(caller, *values) -> errno`.

    Args:
        row: the function.
        locate: the context and the memory for a caller; raises WasmtimeError when there is none.
    """
    if not row.checks:
        make: Maker = _MAKERS.get(len(row.masks), _any_call)
        return make(row.implementation, row.masks, locate)
    call = _any_call(row.implementation, row.masks, locate)
    checks = row.checks

    def checked_call(caller: Any, *values: int) -> int:
        for position, largest, what in checks:
            if not 0 <= values[position] <= largest:
                raise WasmtimeError(f"In func {MODULE_NAME}::{row.name}: Invalid {what}")
        return call(caller, *values)

    return checked_call


def _any_call(implementation: Implementation, masks: tuple[int, ...], locate: Locate) -> Callable[..., int]:
    def call(caller: Any, *values: int) -> int:
        context, memory = locate(caller)
        try:
            implementation(context, memory, *map(and_, values, masks))
        except WasiError as error:
            return error.errno
        except OSError as error:
            return from_os_error(error)
        return 0

    return call


# The same for three and four parameters, which is what `clock_time_get`, `fd_read` and `fd_write` have: programs call
# these millions of times, and collecting the values in a tuple and mapping it takes a third of such a call.


def _call_3(implementation: Implementation, masks: tuple[int, ...], locate: Locate) -> Callable[..., int]:
    mask_0, mask_1, mask_2 = masks

    def call(caller: Any, value_0: int, value_1: int, value_2: int) -> int:
        context, memory = locate(caller)
        try:
            implementation(context, memory, value_0 & mask_0, value_1 & mask_1, value_2 & mask_2)
        except WasiError as error:
            return error.errno
        except OSError as error:
            return from_os_error(error)
        return 0

    return call


def _call_4(implementation: Implementation, masks: tuple[int, ...], locate: Locate) -> Callable[..., int]:
    mask_0, mask_1, mask_2, mask_3 = masks

    def call(caller: Any, value_0: int, value_1: int, value_2: int, value_3: int) -> int:
        context, memory = locate(caller)
        try:
            implementation(context, memory, value_0 & mask_0, value_1 & mask_1, value_2 & mask_2, value_3 & mask_3)
        except WasiError as error:
            return error.errno
        except OSError as error:
            return from_os_error(error)
        return 0

    return call


_MAKERS: Final[dict[int, Maker]] = {3: _call_3, 4: _call_4}


def add_to_linker(linker: Linker, preview0: bool = True) -> None:
    """Defines every function of the table in `linker`, for modules in any store; with `preview0` those of
    `wasi_unstable` too, when a module wants one of them.

    Raises WasmtimeError when one of the names is taken.
    """
    from wasmforge.wasi.binding import Definition  # needs the runtime, which the table does not

    for row in FUNCTIONS:
        linker._insert(MODULE_NAME, row.name, Definition(row))
    if preview0:
        from wasmforge.wasi import preview0 as before

        for row in before.FUNCTIONS:
            linker._insert(before.MODULE_NAME, row.name, Definition(row))
