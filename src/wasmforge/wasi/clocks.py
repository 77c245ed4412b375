"""The clocks a guest can read and wait for. A `WasiContext` owns one object of each; another object with the same two
methods replaces it (a fixed clock gives runs that repeat exactly).
"""

from __future__ import annotations

import time

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.wasi.abi import CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME
from wasmforge.wasi.errno import BADF, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clocks"]


class Clocks:
    """Wall and monotonic time in nanoseconds.

    The monotonic clock counts from when this object was made, so that a guest does not learn for how long the host has
    been up. CPU-time clocks do not exist: they would tell about the host process, and Wasmtime has none either.
    """

    __slots__ = ("_realtime", "_start")

    def __init__(self, realtime: Callable[[], int] = time.time_ns) -> None:
        self._realtime = realtime
        self._start = time.monotonic_ns()

    def now(self, clock: int) -> int:
        """The time of a clock, in nanoseconds."""
        if clock == CLOCK_MONOTONIC:
            return time.monotonic_ns() - self._start
        if clock == CLOCK_REALTIME:
            return self._realtime()
        raise _unknown(clock)

    def resolution(self, clock: int) -> int:
        """The resolution of a clock, in nanoseconds."""
        if clock > CLOCK_MONOTONIC:
            raise _unknown(clock)
        return 1


def _unknown(clock: int) -> Exception:
    """For a clock that exists and that nobody has, or for a number that is no clock, which traps."""
    return WasiError(BADF) if clock <= CLOCK_THREAD_CPUTIME else WasmtimeError("Invalid enum value Clockid")
