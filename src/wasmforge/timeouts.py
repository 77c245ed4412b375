"""`CallTimeout`, which calls with a time limit raise, and `tick_epochs`' thread, which begins
new epochs."""

from __future__ import annotations

from time import monotonic

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Event
    from weakref import ref

    from wasmforge.engine import Engine
    from wasmforge.runtime.deadline import Periodic
    from wasmforge.runtime.engine_state import EngineState

__all__ = ["CallTimeout", "EpochTicker"]


class CallTimeout(WasmtimeError, TimeoutError):
    """A call with `timeout=` took longer, and was stopped."""


class EpochTicker:
    """Begins a new epoch of an engine every few seconds, until it is stopped or the engine goes. Made by
    `Engine.tick_epochs`; a context manager, which stops it.

    A Python thread does that, which cannot run while wasm keeps the GIL. So where the guest does not release it, in the
    thread that made this object, wasm is interrupted (`runtime/deadline.py`) to do it itself.
    """

    __slots__ = ("__weakref__", "_stop", "_thread")

    def __init__(self, engine: Engine, seconds: float) -> None:
        import threading
        from weakref import ref

        from wasmforge.runtime.deadline import Periodic

        stop = self._stop = threading.Event()

        def gone(_: ref[EngineState]) -> None:
            stop.set()

        # Nothing here may keep the engine alive.
        tick = _Tick(ref(engine._state, gone), seconds)
        periodic = Periodic(seconds, tick)
        self._thread = threading.Thread(target=_run, args=(tick, periodic, seconds, stop), daemon=True)
        self._thread.name = "wasmforge epochs"
        self._thread.start()

    def stop(self) -> None:
        """Stop ticking. Returns when the last tick is over."""
        import threading

        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> EpochTicker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Tick:
    """Begins a new epoch if it is time to. The two who call it are rarely late by as much as half an interval."""

    __slots__ = ("_engine", "_interval", "_last")

    def __init__(self, engine: ref[EngineState], seconds: float) -> None:
        self._engine = engine
        self._interval = seconds
        self._last = monotonic()

    def __call__(self) -> None:
        now = monotonic()
        if now - self._last >= self._interval / 2:
            self._last = now
            engine = self._engine()
            if engine is not None:
                engine.increment_epoch()


def _run(tick: _Tick, periodic: Periodic, seconds: float, stop: Event) -> None:
    try:
        while not stop.wait(seconds):
            tick()
    finally:
        periodic.close()
