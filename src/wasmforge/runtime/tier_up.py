"""Tier-up: functions of a lazily compiled module that turn out to be hot get better code while the program runs.
Baseline code counts calls and loop iterations down (`compiler.baseline.counters`); `LazyModule` makes a `TierUp` a
module, which sets the counters and answers the builtin `tier_up`; the embedder's layer gives it an `Optimiser`, since
the runtime does not know the compilers.

Everything happens inside that builtin, on a thread of the program that runs hot code, because wasm may keep the GIL for
as long as it likes. So each visit takes microseconds: it asks the background compiler what is finished, puts finished
code into the slots, hands over the next group, and sets the counter to a value that brings the next visit in about a
millisecond. Without the GIL a visit cannot be, so there are no two at once, except where one lets go of it: then
`_lock` sends the second away.

A function that runs for ever in one activation stays in baseline (there is no on-stack replacement), but counts in its
loops, as do the functions that it calls. Code that was replaced stays mapped, since frames may return into it.
"""

from __future__ import annotations

import os
from _thread import allocate_lock
from _weakref import ref
from time import perf_counter

from wasmforge.compiler.environ import CODE_ALIGNMENT, DEFAULT_TIER_UP_THRESHOLD
from wasmforge.runtime.age import age
from wasmforge.runtime.lazy_code import OPTIMISED
from wasmforge.runtime.lock import LOCK
from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Sequence
    from typing import Any, Final, Protocol

    from wasmforge.runtime.lazy_code import LazyCode, Piece

    class Group(Protocol):
        """Code of some functions: (function index, offset into the code, length, rows of `lazy_code.Piece`) of each."""

        functions: list[tuple[int, int, int, array[int]]]

        def __len__(self) -> int: ...
        def placed(self, distance: int, imported: int) -> bytes:
            """The code for a place `distance` bytes before the slot of the first defined function."""

    class Background(Protocol):
        """The process's one compiler in the background."""

        @property
        def is_idle(self) -> bool:
            """Whether it takes a group."""

        def poll(self) -> tuple[dict[str, Any] | None] | None:
            """None while nothing is finished; else a reply in a tuple, or None in it when the group failed."""

    class Optimiser(Protocol):
        """Compiles groups of functions, given as defined indices."""

        @property
        def background(self) -> Background: ...
        def instructions(self, defined: int) -> int: ...
        def note_calls(self, defined: int, targets: Sequence[int]) -> bool:
            """Learns what the baseline code of a function calls, in the terms of its compiler; whether it counts."""

        def callees(self, defined: int) -> Sequence[int]:
            """Functions that a function calls directly, defined ones."""

        def submit(self, functions: Sequence[int]) -> bool:
            """Hands a group to the idle background compiler."""

        def group(self, reply: dict[str, Any], functions: Sequence[int]) -> Group | None:
            """The code in a reply; None if it is not what was asked for."""


__all__ = ["Function", "State", "TierUp"]

_INSTRUCTIONS_PER_THRESHOLD: Final = 100
"""A function of that many instructions more is hot after so many counts more: they cost LLVM 70 us each, and a count of
a large function stands for a smaller part of it."""

_AGE_PER_COUNT: Final = 0.4 / DEFAULT_TIER_UP_THRESHOLD
"""Seconds of processor time that the program takes, without what it waits for the baseline compiler, before anything is
optimised: a program that is about to end should not start a worker, with which it shares the machine. 0.4 s for the
default threshold."""

_POLL_SECONDS: Final = 0.001
_FASTEST_GROWTH: Final = 16.0

NEVER: Final = 0x7FFF_FFFF
"""The largest value of a counter; counting it down takes seconds."""

_HIGHEST: Final = NEVER - 1
"""Of thresholds: one more stands in the second word of a counter's cell, 0 there for a function without code."""

_GROUP_INSTRUCTIONS: Final = 3000
"""Aimed at by groups: compiled within 0.2 s. Larger ones keep hot functions waiting for each other."""

_GROUP_FUNCTIONS: Final = 100
"""At most in a group: each takes LLVM a millisecond, however small it is."""

_WARM: Final = 8
"""Callees of a hot function come along with it when they are hot up to this part."""

_lock: Final = allocate_lock()
os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]


class State:
    """What has become of a function."""

    BASELINE: Final = 0
    WAITING: Final = 1
    SUBMITTED: Final = 2
    OPTIMISED: Final = 3
    FAILED: Final = 4


class Function:
    """What is known of a function that is compiled: the counter's value when it was set last and when that was, and how
    much was counted before."""

    __slots__ = ("alone", "armed", "counted", "rank", "state", "threshold", "time")

    def __init__(self, threshold: int) -> None:
        self.state = State.BASELINE
        self.threshold = threshold
        self.armed = threshold
        self.counted = 0
        self.rank = 1
        self.time = perf_counter()
        self.alone = False


class _Job:
    """What the background compiler works for."""

    __slots__ = ("functions", "owner")

    def __init__(self, owner: TierUp, functions: list[int]) -> None:
        self.owner = ref(owner)
        self.functions = functions


_job: _Job | None = None


class TierUp:
    """The state of one module. `threshold` as `DEFAULT_TIER_UP_THRESHOLD`; `imported` functions are imported."""

    def __init__(self, code: LazyCode, imported: int, optimiser: Optimiser, threshold: int) -> None:
        self._code = code
        self._counters = code.region.counters
        self._imported = imported
        self._optimiser = optimiser
        self._threshold = threshold
        self._not_before = age() + threshold * _AGE_PER_COUNT
        self._waiting: list[int] = []
        self._unfinished = 0
        self._disabled = False
        self.grown: Callable[[], None] | None = None  # told about new code
        self.functions: dict[int, Function] = {}
        """By defined index, those that are compiled."""

    def add(self, defined: int, targets: Sequence[int], seconds: float) -> None:
        """Sets the counter of a function that is about to run for the first time. `targets` are what it calls, as the
        baseline compiler says it, which took `seconds`."""
        self._not_before += seconds
        counts = self._optimiser.note_calls(defined, targets)
        size = self._optimiser.instructions(defined)
        threshold = min(self._threshold + self._threshold * size // _INSTRUCTIONS_PER_THRESHOLD, _HIGHEST)
        self.functions[defined] = Function(threshold if counts else 0)
        self._counters[2 * defined] = threshold
        self._counters[2 * defined + 1] = (threshold if counts else 0) + 1

    @staticmethod
    def fresh_cells(cells: bytes, optimised: Sequence[int]) -> bytes:
        """Counters, with what stands beside each, as another process shall find them: each run counts for itself. Those
        of functions that need no counting any more, `optimised`, say that the function is not known."""
        from array import array

        words = array("i", cells)
        words[::2] = array("i", [max(x - 1, 0) for x in words[1::2]])
        for x in optimised:
            words[2 * x + 1] = 0
        return words.tobytes()

    def _known(self, defined: int) -> Function | None:
        """What is known of a function; None while it is not compiled. Of those that came with an image only the words
        in their cells tell."""
        function = self.functions.get(defined)
        if function is None and self._counters[2 * defined + 1]:
            function = Function(self._counters[2 * defined + 1] - 1)
            function = self.functions.setdefault(defined, function)
        return function

    def count(self, defined: int) -> int:
        """How many calls and loop iterations of a function were counted."""
        function = self._known(defined)
        if function is None:
            return 0
        return function.counted + function.armed - max(self._counters[2 * defined], 0)

    def visit(self, defined: int) -> None:
        """The builtin: the counter of a function is below zero."""
        self._counters[2 * defined] = NEVER  # whatever happens, it must not stay there
        function = self._known(defined)
        if function is None or self._disabled:
            return
        counted = function.armed
        function.counted += counted
        function.armed = NEVER
        if function.state == State.BASELINE:
            function.state = State.WAITING
            self._unfinished += 1
            function.rank = self._unfinished
            self._waiting.append(defined)
        if _lock.acquire(False):
            try:
                self._progress()
            except (MemoryError, RecursionError):
                pass  # it is the program that is short of them; the next visit may be luckier
            except Exception:
                # Whatever it is, the program has not deserved it: it stays in the code that it has.
                self._disabled = True
            finally:
                _lock.release()
        if function.state in (State.WAITING, State.SUBMITTED):
            self._set_counter(defined, function, counted)

    def _set_counter(self, defined: int, function: Function, counted: int) -> None:
        """So that the first function that waits comes by in a millisecond, the second in two, and so on, if they go on
        as they did: 10,000 bring nine visits in a millisecond, and however few of them go on, there are some."""
        now = perf_counter()
        elapsed = now - function.time
        wanted = _POLL_SECONDS * min(function.rank, self._unfinished)
        growth = wanted / elapsed if elapsed * _FASTEST_GROWTH > wanted else _FASTEST_GROWTH
        function.time = now
        function.armed = max(1, min(int(counted * growth), NEVER))
        self._counters[2 * defined] = function.armed

    # --- With the lock ------------------------------------------------------------------------------------------

    def _progress(self) -> None:
        global _job
        if _job is None and age() < self._not_before:
            return  # before anything is imported that only the background compiler needs
        background = self._optimiser.background
        result = background.poll()
        if result is not None:
            job, _job = _job, None
            owner = None if job is None else job.owner()
            if job is not None and owner is not None:
                owner._finish(job.functions, result[0])
        if not background.is_idle:
            return
        if _job is not None:  # a child of fork: the worker is its parent's
            job, _job = _job, None
            owner = job.owner()
            if owner is not None:
                owner._wait_again(job.functions)
        if self._waiting and age() >= self._not_before:
            functions = self._next_group()
            _job = _Job(self, functions)
            if not self._optimiser.submit(functions):
                _job = None
                self._finish(functions, None)

    def _next_group(self) -> list[int]:
        """The hottest function that waits, those that it calls and that are at least warm, then others that wait."""
        from heapq import nlargest

        optimiser, known = self._optimiser, self.functions
        hottest = nlargest(_GROUP_FUNCTIONS, self._waiting, key=lambda x: known[x].counted)
        first = hottest[0]
        group = [first]
        room = _GROUP_INSTRUCTIONS - optimiser.instructions(first)
        if not known[first].alone:
            warm = [x for x in dict.fromkeys(optimiser.callees(first)) if x != first and self._is_warm(x)]
            for x in dict.fromkeys(warm + hottest[1:]):
                if len(group) >= _GROUP_FUNCTIONS:
                    break
                size = optimiser.instructions(x)
                if size <= room and not known[x].alone:
                    room -= size
                    group.append(x)
        for x in group:
            function = known[x]
            if function.state == State.BASELINE:
                self._unfinished += 1
            function.state = State.SUBMITTED
        self._waiting = [x for x in self._waiting if known[x].state == State.WAITING]
        return group

    def _is_warm(self, defined: int) -> bool:
        function = self._known(defined)
        if function is None or function.state not in (State.BASELINE, State.WAITING):
            return False
        return self.count(defined) * _WARM >= function.threshold

    def _wait_again(self, functions: Sequence[int]) -> None:
        for x in functions:
            self.functions[x].state = State.WAITING
        self._waiting.extend(functions)

    def _finish(self, functions: Sequence[int], reply: dict[str, Any] | None) -> None:
        """Takes what has become of a group. When it failed, each function has another try, alone."""
        started = perf_counter()
        group = None if reply is None else self._optimiser.group(reply, functions)
        if group is None:
            if self.functions[functions[0]].alone:
                self._end(functions, State.FAILED)
                return
            for x in functions:
                self.functions[x].alone = True
            self._wait_again(functions)
            return
        assert reply is not None
        try:
            pieces = self._install(group)
        except WasmtimeError:  # no room or memory for more code
            self._disabled = True
            self._end(functions, State.FAILED)
            return
        self._end(functions, State.OPTIMISED)
        if self.grown is not None:
            self.grown()
        seconds = reply.get("seconds", 0.0) + perf_counter() - started
        size = sum(piece.length for piece in pieces) or 1
        for piece in pieces:
            piece.seconds = seconds * piece.length / size

    def _end(self, functions: Sequence[int], state: int) -> None:
        for x in functions:
            function = self.functions[x]
            function.counted = self.count(x)
            function.armed = self._counters[2 * x] = NEVER
            function.state = state
        self._unfinished -= len(functions)

    def _install(self, group: Group) -> list[Piece]:
        """Puts code behind the text that there is, and lets calls of its functions lead there."""
        code = self._code
        region = code.region
        with LOCK:
            # What is reserved is aligned less.
            start = region.reserve(len(group) + CODE_ALIGNMENT) + CODE_ALIGNMENT - 1 & -CODE_ALIGNMENT
            placed = group.placed(region.slots_address - (code.text_address + start), self._imported)
            functions = [(x - self._imported, at, size, rows) for x, at, size, rows in group.functions]
            pieces = code.add_group(start, placed, functions, OPTIMISED)
            code.publish(pieces)
        return pieces
