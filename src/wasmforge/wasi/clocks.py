"""The clocks a guest can read and wait for. A `WasiContext` owns one object of each; another object with the same
methods replaces it: `FixedClocks` gives runs that repeat exactly.
"""

from __future__ import annotations

import time

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.wasi.abi import CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME
from wasmforge.wasi.errno import BADF, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clocks", "FixedClocks"]


class Clocks:
    """Wall and monotonic time in nanoseconds. A subclass overrides `realtime`, `monotonic` and perhaps `sleep`.

    The monotonic clock counts from when this object was made, so that a guest does not learn for how long the host has
    been up. CPU-time clocks do not exist: they would tell about the host process, and Wasmtime has none either.
    """

    def __init__(self, realtime: Callable[[], int] = time.time_ns) -> None:
        self._realtime = realtime
        self._start = time.monotonic_ns()

    def host_start(self) -> int | None:
        """Where the monotonic clock began on the host's, if both clocks are the host's."""
        return self._start if self._realtime is time.time_ns else None

    def realtime(self) -> int:
        """Nanoseconds since 1970."""
        return self._realtime()

    def monotonic(self) -> int:
        """Nanoseconds since some moment of the run; never less than before."""
        return time.monotonic_ns() - self._start

    def sleep(self, nanoseconds: int) -> bool:
        """Lets time pass for a guest that waits. Returns False if it has to pass by itself, on the host."""
        return False

    def now(self, clock: int) -> int:
        """The time of a clock, in nanoseconds."""
        if clock == CLOCK_MONOTONIC:
            return self.monotonic()
        if clock == CLOCK_REALTIME:
            return self.realtime()
        raise _unknown(clock)

    def resolution(self, clock: int) -> int:
        """The resolution of a clock, in nanoseconds."""
        if clock > CLOCK_MONOTONIC:
            raise _unknown(clock)
        return 1


class FixedClocks(Clocks):
    """Clocks that show what the program does and not what the host does: they start at given times, go on by `step`
    whenever they are read, and by the whole time when a guest sleeps, which therefore does not wait.

    Args:
        realtime: nanoseconds since 1970 at the start.
        monotonic: nanoseconds at the start.
        step: nanoseconds a reading; 0 stops the clocks (programs that wait for the time to change then never end).
    """

    def __init__(self, realtime: int = 0, monotonic: int = 0, step: int = 1_000) -> None:
        super().__init__()
        if min(realtime, monotonic, step) < 0:
            raise WasmtimeError("times and steps of clocks cannot be negative")
        self._offset = realtime - monotonic
        self._now = monotonic
        self._step = step

    def realtime(self) -> int:
        return self.monotonic() + self._offset

    def monotonic(self) -> int:
        now = self._now
        self._now += self._step
        return now

    def sleep(self, nanoseconds: int) -> bool:
        self._now += nanoseconds
        return True


def _unknown(clock: int) -> Exception:
    """For a clock that exists and that nobody has, or for a number that is no clock, which traps."""
    return WasiError(BADF) if clock <= CLOCK_THREAD_CPUTIME else WasmtimeError("Invalid enum value Clockid")
