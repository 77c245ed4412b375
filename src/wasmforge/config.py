"""`Config`: what an `Engine` compiles, and how. Programs fill one in and give it to an engine, which uses it up.

Every setting can be set but not read, as in the wasmtime package. A setting whose feature this version lacks exists
too, accepts the value that means "without it", and raises WasmtimeError otherwise: nothing is accepted and ignored.
"""

from __future__ import annotations

from wasmforge._managed import Managed
from wasmforge.compiler.availability import llvm_available
from wasmforge.compiler.environ import DEFAULT_TIER_UP_THRESHOLD, OPTIMIZATION_LEVELS, Tunables
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.syntax.features import DEFAULT_FEATURES, KNOBS, Feature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import Any

    from wasmforge.runtime.cache.settings import CacheSettings

__all__ = ["Config"]

ADDRESS_SPACE = 1 << 47
"""Bytes that a process can address on x86-64."""

HOST_PAGE = 4096

MAX_THRESHOLD = 1 << 30

DEFAULT_MAX_WASM_STACK = 512 << 10
"""Bytes of stack for WebAssembly, Wasmtime's default."""

STRATEGIES = {"auto": "auto", "llvm": "llvm", "cranelift": "llvm", "baseline": "baseline", "winch": "baseline"}
"""Names of strategies, those of the wasmtime package included, and the compiler of each."""

PROFILERS = ("none", "jitdump")


def _setting(function: Callable[[Config, Any], None]) -> Any:
    """A property that can be set and not read."""
    note = "Can be set, not read."
    return property(None, function, None, f"{function.__doc__ or ''}\n\n        {note}")


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("expected a bool")
    return value


def _bytes(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is a number of bytes, got {type(value).__name__}")
    if value < 0:
        raise WasmtimeError(f"{name} must not be negative, got {value}")
    if value > ADDRESS_SPACE:
        raise WasmtimeError(f"{name} must fit the address space of {ADDRESS_SPACE:#x} bytes, got {value:#x}")
    return value


def _whole_pages(size: int) -> int:
    """Rounded up to what can be mapped and protected."""
    return size + HOST_PAGE - 1 & -HOST_PAGE


def _feature(feature: int, title: str) -> Any:
    """A setting that switches a proposal: what needs it while it is off is refused by validation."""

    def set_feature(self: Config, enable: bool) -> None:
        self._check_open()
        bit = 1 << feature
        self._features = self._features | bit if _bool(enable) else self._features & ~bit

    default = "On" if KNOBS[feature].default else "Off"
    set_feature.__doc__ = f"{title}. {default} by default; a module that needs it while it is off is refused."
    return _setting(set_feature)


def _always(name: str, feature: str) -> Any:
    """A setting for a part of WebAssembly that is always there: True is accepted, False is an error."""

    def set_always(self: Config, enable: bool) -> None:
        self._check_open()
        if not _bool(enable):
            raise WasmtimeError(f"{name} cannot be disabled: {feature} always supported in this version")

    set_always.__doc__ = f"For {feature.removesuffix(' are').removesuffix(' is')}, always supported: False raises."
    return _setting(set_always)


class Config(Managed):
    """Settings of an `Engine`. An engine takes the config over; setting anything afterwards raises ValueError."""

    def __init__(self) -> None:
        self._tunables: dict[str, int | bool | str] = {}
        self._features = DEFAULT_FEATURES
        self._max_wasm_stack = DEFAULT_MAX_WASM_STACK
        self._parallel = True
        self._shared_memory = False
        self._strategy = STRATEGIES["auto"]
        self._cache: bool | CacheSettings = True
        self._tier_up_threshold: int | None = DEFAULT_TIER_UP_THRESHOLD

    def __setattr__(self, name: str, value: object) -> None:
        # A misspelt setting would otherwise be accepted and do nothing.
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"Config has no setting {name!r}")
        super().__setattr__(name, value)

    def _set(self, name: str, value: int | bool | str) -> None:
        self._check_open()
        self._tunables[name] = value

    def _consume(self) -> tuple[Tunables, int, bool, str]:
        """The tunables, bytes of stack, whether to compile in parallel, and which compiler or "auto"; the config is
        used up."""
        self._check_open()
        if self._features >> Feature.RELAXED_SIMD & 1 and not self._features >> Feature.SIMD & 1:
            raise WasmtimeError(
                "cannot disable the simd proposal but enable the relaxed simd proposal: "
                "set wasm_relaxed_simd = False as well as wasm_simd = False"
            )
        self._closed = True
        tunables = Tunables(**self._tunables, features=self._features)  # type: ignore[arg-type]
        return tunables, self._max_wasm_stack, self._parallel, self._strategy

    def __repr__(self) -> str:
        changed = [f"strategy={self._strategy!r}", *(f"{name}={value!r}" for name, value in self._tunables.items())]
        return f"<Config {', '.join(changed)}{' used up' * self._closed}>"

    # --- Compilation ----------------------------------------------------------------------------------------

    @_setting
    def strategy(self, strategy: str) -> None:
        """How modules are compiled: `"llvm"` optimises them, whole and before they run; `"baseline"` compiles each
        function at its first call, a hundred times faster, and `"auto"`, the default, begins like it and, where
        llvmlite is installed, has hot functions optimised in a background process. Images (`Module.serialize`,
        `wasmforge compile`) are optimised under `"auto"` too, where llvmlite is installed. The wasmtime package's names
        mean `"llvm"` (`"cranelift"`) and `"baseline"` (`"winch"`). Raises WasmtimeError when the optimising compiler
        is not installed, and for an unknown name."""
        self._check_open()
        if strategy not in STRATEGIES:
            raise WasmtimeError(f"unknown strategy: {strategy}")
        if STRATEGIES[strategy] == "llvm" and not llvm_available():
            raise WasmtimeError(
                f"strategy {strategy!r} needs the optimising compiler, which is not installed: "
                "pip install 'wasmforge[llvm]'"
            )
        self._strategy = STRATEGIES[strategy]

    @_setting
    def cranelift_opt_level(self, opt_level: str) -> None:
        """How hard to optimise: `"none"`, `"speed"` (the default) or `"speed_and_size"`. The name is Wasmtime's;
        the optimiser is LLVM."""
        if opt_level not in OPTIMIZATION_LEVELS:
            raise WasmtimeError(f"unknown opt level: {opt_level}")
        self._set("optimization", opt_level)

    @_setting
    def parallel_compilation(self, enable: bool) -> None:
        """Whether several processes compile the functions of a module. On by default."""
        self._check_open()
        self._parallel = _bool(enable)

    @_setting
    def tier_up_threshold(self, count: int | None) -> None:
        """How many calls and loop iterations make a small function hot, 30,000 by default, for the strategy `"auto"`:
        hot functions are compiled by the optimising compiler while the program runs. Large functions need more. With
        less than the default, the time that passes before the first is compiled shrinks in proportion. None: no
        function is ever hot."""
        self._check_open()
        if count is None:
            self._tier_up_threshold = None
            return
        if not isinstance(count, int) or isinstance(count, bool):
            raise TypeError("expected int or None")
        if not 1 <= count <= MAX_THRESHOLD:
            raise WasmtimeError(f"tier_up_threshold must be between 1 and {MAX_THRESHOLD}, got {count}")
        self._tier_up_threshold = count

    @_setting
    def profiler(self, profiler: str) -> None:
        """`"none"`; the wasmtime package's `"jitdump"` is not supported yet and raises."""
        self._check_open()
        if profiler not in PROFILERS:
            raise WasmtimeError(f"unknown profiler: {profiler}")
        if profiler != "none":
            raise WasmtimeError(f"profiler {profiler!r} is not supported yet: only 'none' is")

    @_setting
    def cache(self, enabled: bool | str | PathLike[str] | None) -> None:
        """Whether compiled modules are kept on disk and found there by the next process that compiles the same.

        True, the default, means `$XDG_CACHE_HOME/wasmforge/modules` (else `~/.cache/...`) with at most 1 GiB, or what
        the environment variable WASMFORGE_CACHE says: a directory, or 0 for none. False or None means no cache. A path
        is that of a configuration file in the format of Wasmtime's cache: a TOML table `[cache]` with `directory`,
        `files-total-size-soft-limit`, `file-count-soft-limit`, their `...-percent-if-deleting` and `enabled`.

        In the wasmtime package there is no cache unless this is set, and False is refused.
        """
        self._check_open()
        if enabled is None or isinstance(enabled, bool):
            self._cache = bool(enabled)
        elif isinstance(enabled, str) or hasattr(enabled, "__fspath__"):
            from os import fspath

            from wasmforge.runtime.cache.settings import load_settings

            self._cache = load_settings(fspath(enabled)) or False
        else:
            raise TypeError("expected string or bool")

    @_setting
    def debug_info(self, enable: bool) -> None:
        """Whether images keep the debug information (DWARF) that the module brings along. Off by default."""
        self._set("parse_wasm_debuginfo", _bool(enable))

    @_setting
    def cranelift_debug_verifier(self, enable: bool) -> None:
        """Whether LLVM's verifier checks the intermediate code of every function before it is compiled: a help to find
        bugs of this project. Off by default; the name is Wasmtime's."""
        self._set("verify_ir", _bool(enable))

    # --- Proposals ------------------------------------------------------------------------------------------

    wasm_reference_types: bool = _feature(Feature.REFERENCE_TYPES, "References as values, and several tables")
    wasm_bulk_memory: bool = _always("wasm_bulk_memory", "bulk memory operations are")
    wasm_multi_value: bool = _always("wasm_multi_value", "functions with several results are")
    wasm_threads: bool = _feature(Feature.THREADS, "Shared memories and atomic instructions")
    wasm_tail_call: bool = _feature(Feature.TAIL_CALL, "Tail calls")
    wasm_function_references: bool = _feature(
        Feature.FUNCTION_REFERENCES, "Typed function references, and types that refer to types"
    )
    wasm_wide_arithmetic: bool = _feature(Feature.WIDE_ARITHMETIC, "Instructions on integers of 128 bits")
    wasm_extended_const: bool = _feature(
        Feature.EXTENDED_CONST, "Addition, subtraction and multiplication in constant expressions"
    )
    wasm_simd: bool = _feature(Feature.SIMD, "Vector instructions and the type v128")
    wasm_relaxed_simd: bool = _feature(
        Feature.RELAXED_SIMD, "Vector instructions whose results depend on the processor"
    )

    @_setting
    def wasm_relaxed_simd_deterministic(self, enable: bool) -> None:
        """Whether relaxed vector instructions give the same results on every processor, those of the specification's
        deterministic profile. Off by default: they are what the processor does fastest."""
        self._set("relaxed_simd_deterministic", _bool(enable))

    wasm_multi_memory: bool = _feature(Feature.MULTI_MEMORY, "Several memories in a module")
    wasm_memory64: bool = _feature(Feature.MEMORY64, "64-bit memories and tables")
    wasm_custom_page_sizes: bool = _feature(Feature.CUSTOM_PAGE_SIZES, "Memories with pages of one byte")

    @_setting
    def wasm_exceptions(self, enable: bool) -> None:
        """Whether modules may use exceptions. Either value can be set, as in the wasmtime package, but exceptions are
        not implemented yet: a module that uses them is refused by an error that says so."""
        self._check_open()
        _bool(enable)

    # --- Running --------------------------------------------------------------------------------------------

    @_setting
    def consume_fuel(self, enable: bool) -> None:
        """Whether guests run on fuel, which `Store.set_fuel` gives them: an instruction costs 1 (`nop`, `drop`,
        `block`, `loop`, `unreachable`, `return`, `else` and `end` nothing), and running out of it is a trap. Off by
        default."""
        self._set("consume_fuel", _bool(enable))

    @_setting
    def epoch_interruption(self, enable: bool) -> None:
        """Whether guests look at every function entry and loop whether the engine has reached the epoch that is their
        store's deadline: `Engine.increment_epoch`, `Store.set_epoch_deadline`. Off by default."""
        self._set("epoch_interruption", _bool(enable))

    @_setting
    def shared_memory(self, enable: bool) -> None:
        """Whether shared memories can be created, by `SharedMemory` and by modules that define one. Off by default."""
        self._check_open()
        self._shared_memory = _bool(enable)

    @_setting
    def max_wasm_stack(self, size: int) -> None:
        """Bytes of stack for the WebAssembly frames of a store, 512 KiB by default. Running out is a trap."""
        self._check_open()
        size = _bytes(size, "max_wasm_stack")
        if size == 0:
            raise WasmtimeError("max_wasm_stack size cannot be zero")
        self._max_wasm_stack = size

    @_setting
    def memory_reservation(self, size: int) -> None:
        """Bytes of address space for each memory, 4 GiB by default; rounded up to whole pages of the host. Less is
        only used with explicit checks (`signals_based_traps = False`), and bounds how far a memory can grow."""
        self._set("memory_reservation", _whole_pages(_bytes(size, "memory_reservation")))

    @_setting
    def memory_reservation_for_growth(self, size: int) -> None:
        """Bytes of address space that a 64-bit memory reserves beyond `memory_reservation` or its initial size, 64 GiB
        by default; rounded up to whole pages of the host. It cannot grow further, since memories never move (those of
        Wasmtime do). A memory whose type has a maximum reserves no more than that."""
        self._set("memory_reservation_for_growth", _whole_pages(_bytes(size, "memory_reservation_for_growth")))

    @_setting
    def memory_guard_size(self, size: int) -> None:
        """Inaccessible bytes behind each memory, 32 MiB by default; constant offsets below it need no check. Rounded up
        to whole pages of the host."""
        self._set("memory_guard_size", _whole_pages(_bytes(size, "memory_guard_size")))

    @_setting
    def guard_before_linear_memory(self, enable: bool) -> None:
        """Whether there is a guard before each memory as well. On by default, against bugs of the compiler."""
        self._set("guard_before_linear_memory", _bool(enable))

    @_setting
    def signals_based_traps(self, enable: bool) -> None:
        """Whether accesses out of bounds are found by faults on guard pages (the default) or by comparing every
        address with the memory's length."""
        self._set("signals_based_traps", _bool(enable))

    @_setting
    def memory_init_cow(self, enable: bool) -> None:
        """Whether initial contents of memories are mapped copy-on-write (the default) or copied."""
        self._set("memory_init_cow", _bool(enable))

    @_setting
    def generate_address_map(self, enable: bool) -> None:
        """Whether images hold the table that gives backtraces their offsets. On by default."""
        self._set("generate_address_map", _bool(enable))
