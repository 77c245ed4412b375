"""What the compiled stubs of WASI functions (`runtime/native/wasi_calls.py`) may do without Python for one guest: the
record that they read. `context.py` and the table of descriptors keep it up to date.

Threat: the stubs hand host descriptors of this record to the kernel. So an entry is there only while the descriptor
table holds the object that owns the host's descriptor, and it goes before that is closed.
"""

from __future__ import annotations

from wasmforge.compiler.environ import WasiGuest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes

    from wasmforge.wasi.clocks import Clocks
    from wasmforge.wasi.descriptors import Descriptor
else:
    from wasmforge.runtime import ffi as ctypes

__all__ = ["NULL", "READ", "SEEK", "WRITE", "NativeGuest"]

READ = WasiGuest.READ
WRITE = WasiGuest.WRITE
SEEK = WasiGuest.SEEK
NULL = WasiGuest.NULL

_TABLE = WasiGuest.TABLE // 8


class NativeGuest:
    """The record of one `WasiContext`. `address` is valid as long as this object."""

    __slots__ = ("_shared", "_words", "address")

    def __init__(self) -> None:
        self._words = (ctypes.c_uint64 * (WasiGuest.SIZE // 8))()
        self.address = ctypes.addressof(self._words)
        self._shared = False

    def set_descriptor(self, number: int, descriptor: Descriptor | None) -> None:
        """What a number stands for from now on; None: nothing."""
        if number < WasiGuest.DESCRIPTORS and not self._shared:
            flags, host = (0, 0) if descriptor is None else descriptor.native()
            self._words[_TABLE + number] = flags | host << 32

    def share(self) -> None:
        """The guest gets threads. Threat: a stub loads a host descriptor and hands it to the kernel later; in between
        another thread could close it, and the host process open a file of its own under the same number, which the
        guest would read or write. So from now on there is no descriptor here."""
        self._shared = True
        for number in range(WasiGuest.DESCRIPTORS):
            self._words[_TABLE + number] = 0

    def set_clocks(self, clocks: Clocks) -> None:
        """The stubs read the host's clocks if these do nothing else."""
        from wasmforge.wasi.clocks import Clocks

        start = clocks.host_start() if type(clocks) is Clocks else None
        self._words[WasiGuest.CLOCKS // 8] = start is not None
        self._words[WasiGuest.MONOTONIC_START // 8] = start or 0

    def set_random(self, native: bool) -> None:
        """Whether random bytes are the host's."""
        self._words[WasiGuest.RANDOM // 8] = native
