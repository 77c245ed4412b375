"""The clocks a guest can read and wait for. A `WasiContext` owns one object of each; another object with the same two
methods replaces it (a fixed clock gives runs that repeat exactly).
"""

from __future__ import annotations

import time

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
        raise WasiError(BADF)

    def resolution(self, clock: int) -> int:
        """The resolution of a clock, in nanoseconds."""
        if clock > CLOCK_MONOTONIC:
            raise WasiError(BADF)
        return 1


LAST_CLOCK = CLOCK_THREAD_CPUTIME
