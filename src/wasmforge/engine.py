"""`Engine`: the settings, canonical types and loaded code that modules and stores have in common. One engine may be
used by any number of threads; most programs need one.
"""

from __future__ import annotations

from wasmforge._managed import Managed
from wasmforge.compiler.environ import DEFAULT_TIER_UP_THRESHOLD, Tunables
from wasmforge.runtime import EngineState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmforge.config import Config
    from wasmforge.runtime.cache import ImageCache
    from wasmforge.runtime.cache.settings import CacheSettings
    from wasmforge.syntax.module import Module as SyntaxModule
    from wasmforge.timeouts import EpochTicker
    from wasmforge.validation import ModuleValidation

__all__ = ["Engine"]


class Engine(Managed):
    """What compiles and loads modules.

    Parameters:
        config: the settings, the defaults if None. The config is used up and cannot make a second engine.

    Raises:
        TypeError: `config` is something else.
        ValueError: `config` was already used.
    """

    def __init__(self, config: Config | None = None) -> None:
        self._image_cache: ImageCache | None = None
        self._cache_setting: bool | CacheSettings | None = True  # None when the cache is open
        if config is None:
            # What a new `Config` says, without its module, which a process that only maps an image need not load.
            self._tunables = Tunables()
            self._workers: int | None = None
            self._wanted_strategy = "auto"
            self._tier_up_threshold: int | None = DEFAULT_TIER_UP_THRESHOLD
            self._state = EngineState(self._tunables)
            return
        from wasmforge.config import Config

        if not isinstance(config, Config):
            raise TypeError("expected Config")
        self._cache_setting = config._cache
        self._tier_up_threshold = config._tier_up_threshold
        self._tunables, max_wasm_stack, parallel, self._wanted_strategy = config._consume()
        self._workers = None if parallel else 1
        self._state = EngineState(self._tunables, max_wasm_stack=max_wasm_stack, shared_memory=config._shared_memory)

    @property
    def _strategy(self) -> str:
        """The compiler of images, decided when one is needed."""
        return _automatic_strategy() if self._wanted_strategy == "auto" else self._wanted_strategy

    @property
    def _lazy(self) -> bool:
        """Whether modules are compiled while they run, each function at its first call."""
        return self._wanted_strategy != "llvm"

    def increment_epoch(self) -> None:
        """Begin the next epoch: stores whose deadline it is stop their guests at the next loop or call
        (`Config.epoch_interruption`, `Store.set_epoch_deadline`). From any thread, for instance a timer's.
        """
        self._check_open()
        self._state.increment_epoch()

    def tick_epochs(self, seconds: float) -> EpochTicker:
        """Let a thread begin a new epoch again and again, so that deadlines of stores are times::

            with engine.tick_epochs(0.01):
                ...

        The thread is a daemon; it ends with the block, with `stop()` of what this returns, or with the engine. It needs
        the GIL, which calls keep unless they are told to release it (`Func.bind(..., release_gil=True)`). So guests
        that keep it are interrupted at every tick, without any thread, in the thread that called this; in other
        threads, they keep the clock from going on.

        Parameters:
            seconds: between two epochs.

        Raises:
            ValueError: not more than 0 seconds.
        """
        self._check_open()
        if not seconds > 0:
            raise ValueError(f"the time between two epochs must be more than 0 seconds, got {seconds}")
        from wasmforge.timeouts import EpochTicker

        return EpochTicker(self, seconds)

    @property
    def _optimises(self) -> bool:
        """Whether the optimising compiler helps where the baseline compiler comes first."""
        return self._wanted_strategy == "auto" and self._strategy == "llvm"

    @property
    def _lazy_threshold(self) -> int | None:
        """The counts from which functions are hot; None where nothing compiles them better."""
        return self._tier_up_threshold if self._optimises else None

    def is_pulley(self) -> bool:
        """Whether code is interpreted by Wasmtime's bytecode interpreter Pulley: never here, it is native code."""
        return False

    def __repr__(self) -> str:
        defaults = Tunables().as_dict()
        changed = [f"{k}={v!r}" for k, v in self._tunables.as_dict().items() if v != defaults[k]]
        return f"<Engine {', '.join([f'strategy={self._wanted_strategy!r}', *changed])}{' closed' * self._closed}>"

    def _open_cache(self) -> ImageCache | None:
        """The compilation cache; None when it is switched off, or there is no place for it."""
        if self._cache_setting is not None:
            if self._lazy:
                from wasmforge._start import import_together

                import_together("kept")
            from wasmforge.runtime.cache import ImageCache
            from wasmforge.runtime.cache.settings import default_settings

            setting = self._cache_setting
            settings = default_settings() if setting is True else setting or None
            if settings is None:
                pass
            elif not self._lazy:
                self._image_cache = ImageCache(settings, self._tunables, self._strategy)
            elif not (self._tunables.debug_guest or self._tunables.parse_wasm_debuginfo):
                from wasmforge._saved import restorer

                threshold = self._lazy_threshold
                compiler = f"{self._wanted_strategy}, tier-up {threshold}"
                restore = restorer(self._compile_module, threshold)
                self._image_cache = ImageCache(settings, self._tunables, compiler, restore)
            self._cache_setting = None
        return self._image_cache

    def _compile(self, wasm: bytes, progress: Callable[[int, int], None] | None = None) -> bytes:
        """The image of a binary module: decode, validate, compile. `progress` is called meanwhile with the parts that
        are done and all. Raises WasmtimeError when it is not a module."""
        from wasmforge.binary import decode
        from wasmforge.validation import validate

        module = decode(wasm)
        return self._compile_module(module, validate(module, self._tunables.features), progress)

    def _compile_module(
        self, module: SyntaxModule, facts: ModuleValidation, progress: Callable[[int, int], None] | None = None
    ) -> bytes:
        """The image of a module that is decoded and valid."""
        if self._strategy == "baseline":
            from wasmforge.compiler.baseline import compile_module
        else:
            from wasmforge.compiler.llvm import compile_module
        return compile_module(module, facts, self._tunables, workers=self._workers, progress=progress)


def _automatic_strategy() -> str:
    from wasmforge.compiler.availability import llvm_available

    return "llvm" if llvm_available() else "baseline"


_default: Engine | None = None


def default_engine() -> Engine:
    """The engine of programs that do not make one themselves, so that what they load shares its types."""
    global _default
    if _default is None:
        _default = Engine()
    return _default
