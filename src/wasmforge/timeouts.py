"""`CallTimeout`, which calls with a time limit raise, and `tick_epochs`' thread, which begins
new epochs."""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Event
    from weakref import ref

    from wasmforge.engine import Engine

__all__ = ["CallTimeout", "EpochTicker"]


class CallTimeout(WasmtimeError, TimeoutError):
    """A call with `timeout=` took longer, and was stopped."""


class EpochTicker:
    """A thread that begins a new epoch of an engine every few seconds, until it is stopped or the engine goes. Made by
    `Engine.tick_epochs`; a context manager, which stops it."""

    __slots__ = ("__weakref__", "_stop", "_thread")

    def __init__(self, engine: Engine, seconds: float) -> None:
        import threading
        from weakref import ref

        stop = self._stop = threading.Event()

        def gone(_: ref[Engine]) -> None:
            stop.set()

        # The thread must keep neither the engine nor this object alive.
        self._thread = threading.Thread(target=_tick, args=(ref(engine, gone), seconds, stop), daemon=True)
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


def _tick(weak: ref[Engine], seconds: float, stop: Event) -> None:
    while not stop.wait(seconds):
        engine = weak()
        if engine is None or engine._closed:
            return
        engine._state.increment_epoch()
        del engine
