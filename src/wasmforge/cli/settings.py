"""The option groups `-O`, `-C`, `-D`, `-W` and `-S`: one table of the settings that work, and the names of
Wasmtime's that do not, so that using one says so. `run`, `compile`, `wast`, `objdump` and `explore` apply them to a
`Config`; `settings` and `completion` list them.
"""

from __future__ import annotations

from wasmforge.cli.errors import UsageError
from wasmforge.cli.options import Option, Parsed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from wasmforge.config import Config

__all__ = ["GROUPS", "GROUP_OPTIONS", "Settings", "parse_groups"]

GROUPS: Final = {
    "-O": ("--optimize", "optimization and tuning options", "Optimization"),
    "-C": ("--codegen", "code generation options", "Codegen"),
    "-D": ("--debug", "debug options", "Debug"),
    "-W": ("--wasm", "WebAssembly semantics options", "Wasm"),
    "-S": ("--wasi", "WASI options", "WASI"),
}

GROUP_OPTIONS: Final = (
    *(
        Option(name, f"{text}; `{short} help` lists them", short=short, value="KEY[=VAL[,..]]", repeat=True)
        for short, (name, text, _) in GROUPS.items()
    ),
    Option("--record", "", short="-R", value="KEY[=VAL[,..]]", unsupported="recording is not implemented"),
    Option("--config", "take options of these groups from a TOML file; the command line's come after", value="FILE"),
)


def _boolean(name: str, text: str | None) -> bool:
    if text in (None, "y", "yes", "true"):
        return True
    if text in ("n", "no", "false"):
        return False
    raise UsageError(f"unknown boolean flag `{text}`, only yes,no,<nothing> accepted")


def _size(name: str, text: str | None) -> int:
    if text is None:
        raise UsageError(f"`{name}` needs a value: {name}=N")
    digits = text.replace("_", "")
    try:
        value = int(digits, 16 if digits.lower().startswith("0x") else 10)
    except ValueError:
        raise UsageError(f"`{name}`: invalid number `{text}`") from None
    if value < 0:
        raise UsageError(f"`{name}`: must not be negative, got `{text}`")
    if value >= 1 << 64:
        raise UsageError(f"`{name}`: number too large to fit in 64 bits: `{text}`")
    return value


def _text(name: str, text: str | None) -> str:
    if text is None:
        raise UsageError(f"`{name}` needs a value: {name}=VAL")
    return text


_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def _duration(name: str, text: str | None) -> float:
    """Seconds, from a number of seconds or one with a unit."""
    given = _text(name, text)
    digits = given.rstrip("numsh")
    try:
        return float(digits) * _UNITS[given[len(digits) :]]
    except (ValueError, KeyError):
        raise UsageError(f"`{name}`: failed to parse duration `{given}`: expected 2s, 100ms, ...") from None


_LEVELS: Final = {"0": "none", "1": "speed", "2": "speed", "s": "speed_and_size"}


def _level(name: str, text: str | None) -> str:
    try:
        return _LEVELS[_text(name, text)]
    except KeyError:
        raise UsageError(f"unknown optimization level `{text}`, only 0,1,2,s accepted") from None


class Setting:
    """A setting that works.

    Args:
        name: its name in the group.
        parse: text to value; gets the name for messages.
        help: a line for `-X help`.
        config: the property of `Config` that it sets, or None for those that the subcommand reads.
        repeat: it may be given several times; the subcommand reads a list.
        implies: a switch of `Config` that must be on for what the subcommand reads.
    """

    __slots__ = ("config", "help", "implies", "name", "parse", "repeat")

    def __init__(
        self,
        name: str,
        parse: Callable[[str, str | None], Any],
        help: str,  # noqa: A002
        config: str | None,
        repeat: bool = False,
        implies: str | None = None,
    ) -> None:
        self.implies = implies
        self.repeat = repeat
        self.name = name
        self.parse = parse
        self.help = help
        self.config = config


SETTINGS: Final[dict[str, tuple[Setting, ...]]] = {
    "-O": (
        Setting("opt-level", _level, "=0|1|2|s: how hard to optimize (default: 2)", "cranelift_opt_level"),
        Setting("memory-reservation", _size, "=N: bytes of address space for a memory", "memory_reservation"),
        Setting(
            "memory-reservation-for-growth",
            _size,
            "=N: bytes of address space more for a 64-bit memory",
            "memory_reservation_for_growth",
        ),
        Setting("memory-guard-size", _size, "=N: inaccessible bytes behind a memory", "memory_guard_size"),
        Setting(
            "guard-before-linear-memory",
            _boolean,
            "[=y|n]: a guard before each memory as well",
            "guard_before_linear_memory",
        ),
        Setting("memory-init-cow", _boolean, "[=y|n]: map initial contents copy-on-write", "memory_init_cow"),
        Setting("signals-based-traps", _boolean, "[=y|n]: find bad accesses by guard pages", "signals_based_traps"),
    ),
    "-C": (
        Setting("compiler", _text, "=auto|llvm|baseline: at first calls, or optimised ahead (llvm)", "strategy"),
        Setting("parallel-compilation", _boolean, "[=y|n]: compile in several processes", "parallel_compilation"),
        Setting("cache", _boolean, "[=y|n]: keep compiled modules on disk (default: y)", "cache"),
        Setting("cache-config", _text, "=FILE: a configuration file of the cache (TOML)", "cache"),
        Setting(
            "cranelift-debug-verifier",
            _boolean,
            "[=y|n]: let LLVM check the intermediate code of every function",
            "cranelift_debug_verifier",
        ),
    ),
    "-D": (
        Setting("debug-info", _boolean, "[=y|n]: keep the module's DWARF in images", "debug_info"),
        Setting("address-map", _boolean, "[=y|n]: offsets in backtraces", "generate_address_map"),
        Setting("coredump", _text, "=PATH: write a WebAssembly core dump after a trap; %p is the process", None),
    ),
    "-W": (
        Setting("max-wasm-stack", _size, "=N: bytes of stack for WebAssembly", "max_wasm_stack"),
        Setting("timeout", _duration, "=TIME: stop the program after 2s, 100ms, ...", None),
        Setting("fuel", _size, "=N: stop the program after about N instructions", None, implies="consume_fuel"),
        Setting(
            "epoch-interruption",
            _boolean,
            "[=y|n]: compile checks of the epoch (nothing here increments it)",
            "epoch_interruption",
        ),
        Setting("max-memory-size", _size, "=N: bytes that each memory may have", None),
        Setting("max-table-elements", _size, "=N: elements that each table may have", None),
        Setting("max-instances", _size, "=N: instances at most", None),
        Setting("max-tables", _size, "=N: tables at most", None),
        Setting("max-memories", _size, "=N: memories at most", None),
        Setting("trap-on-grow-failure", _boolean, "[=y|n]: end the program when memory.grow or table.grow fails", None),
        Setting("unknown-imports-trap", _boolean, "[=y|n]: functions that are missing trap when called", None),
        Setting("unknown-imports-default", _boolean, "[=y|n]: functions that are missing return zeros", None),
        Setting("bulk-memory", _boolean, "[=y|n]: bulk memory operations", "wasm_bulk_memory"),
        Setting("multi-value", _boolean, "[=y|n]: several results", "wasm_multi_value"),
        Setting("reference-types", _boolean, "[=y|n]: reference types", "wasm_reference_types"),
        Setting("simd", _boolean, "[=y|n]: vector instructions", "wasm_simd"),
        Setting("relaxed-simd", _boolean, "[=y|n]: relaxed vector instructions", "wasm_relaxed_simd"),
        Setting(
            "relaxed-simd-deterministic",
            _boolean,
            "[=y|n]: relaxed vector instructions give the same results on every processor",
            "wasm_relaxed_simd_deterministic",
        ),
        Setting("multi-memory", _boolean, "[=y|n]: several memories", "wasm_multi_memory"),
        Setting("memory64", _boolean, "[=y|n]: 64-bit memories and tables", "wasm_memory64"),
        Setting("custom-page-sizes", _boolean, "[=y|n]: memories with pages of one byte", "wasm_custom_page_sizes"),
        Setting("tail-call", _boolean, "[=y|n]: tail calls", "wasm_tail_call"),
        Setting("function-references", _boolean, "[=y|n]: typed function references", "wasm_function_references"),
        Setting("wide-arithmetic", _boolean, "[=y|n]: integers of 128 bits", "wasm_wide_arithmetic"),
        Setting("extended-const", _boolean, "[=y|n]: operators in constant expressions", "wasm_extended_const"),
        Setting("threads", _boolean, "[=y|n]: shared memories and atomic instructions", "wasm_threads"),
        Setting("shared-memory", _boolean, "[=y|n]: shared memories can be created", "shared_memory"),
    ),
    "-S": (
        Setting("cli", _boolean, "[=y|n]: give the program WASI (default: y)", None),
        Setting("common", _boolean, "[=y|n]: the old name of `cli`", None),
        Setting("inherit-env", _boolean, "[=y|n]: give it all environment variables", None),
        Setting("preview0", _boolean, "[=y|n]: define `wasi_unstable` too (default: y)", None),
        Setting("threads", _boolean, "[=y|n]: let it start threads (wasi-threads; needs -W shared-memory)", None),
        Setting("tcplisten", _text, "=ADDRESS:PORT: give it a listening socket; may be repeated", None, repeat=True),
    ),
}

_NOT_HERE: Final[dict[str, str]] = {
    # Wasmtime's settings (reference, tables E3 to E7) that would be accepted and do nothing: using one is an error.
    "-O": """regalloc-algorithm memory-may-move table-lazy-init pooling-allocator
        pooling-decommit-batch-size pooling-memory-keep-resident pooling-table-keep-resident
        pooling-memory-protection-keys pooling-max-memory-protection-keys memory-guaranteed-dense-image-size
        pooling-total-core-instances pooling-total-component-instances pooling-total-memories pooling-total-tables
        pooling-total-stacks pooling-max-memory-size pooling-table-elements pooling-max-core-instance-size
        pooling-max-unused-warm-slots pooling-async-stack-keep-resident pooling-max-component-instance-size
        pooling-max-core-instances-per-component pooling-max-memories-per-component
        pooling-max-tables-per-component pooling-max-tables-per-module pooling-max-memories-per-module
        pooling-total-gc-heaps dynamic-memory-guard-size static-memory-guard-size static-memory-forced
        static-memory-maximum-size dynamic-memory-reserved-for-growth pooling-pagemap-scan""",
    "-C": "collector pcc native-unwind-info inlining",
    "-D": "guest-debug logging log-to-files",
    "-W": """nan-canonicalization async-stack-size async-stack-zeroing unknown-exports-allow wmemcheck
        exceptions all-proposals shared-everything-threads component-model component-model-async
        component-model-async-builtins component-model-async-stackful component-model-threading
        component-model-error-context component-model-gc stack-switching gc
        gc-support component-model-fixed-length-lists concurrency-support""",
    "-S": """cli-exit-with-code nn http http-outgoing-body-buffer-chunks http-outgoing-body-chunk-size
        config keyvalue listenfd tls preview2 nn-graph inherit-network allow-ip-name-lookup tcp udp
        network-error-code config-var keyvalue-in-memory-data p3 max-resources hostcall-fuel
        max-random-size max-http-fields-size""",
}


_OFF_HERE: Final = """memory-may-move pooling-allocator pooling-memory-protection-keys pooling-pagemap-scan
    pcc inlining guest-debug logging log-to-files nan-canonicalization async-stack-zeroing unknown-exports-allow
    wmemcheck shared-everything-threads component-model component-model-async component-model-async-builtins
    component-model-async-stackful component-model-threading component-model-error-context component-model-gc
    stack-switching exceptions gc gc-support component-model-fixed-length-lists cli-exit-with-code nn http
    config keyvalue listenfd tls inherit-network allow-ip-name-lookup tcp udp network-error-code p3"""
"""Of those, the switches whose `=n` is true here: it is accepted, since a script that says so gets what it wants."""

_TABLES: Final = {name[2:]: short for short, (name, _, _) in GROUPS.items()}
"""The tables of a configuration file, by Wasmtime's names: `[optimize]`, `[wasm]`, ..."""


class Settings:
    """The settings of a command line: by `Config` property, and by name for those that the subcommand reads."""

    __slots__ = ("config", "other")

    def __init__(self) -> None:
        self.config: dict[str, tuple[str, Any]] = {}  # property: the option as written, value
        self.other: dict[str, Any] = {}

    def refuse_others(self, command: str, *but: str) -> None:
        """Raises UsageError for a setting that `command` would ignore: one that it is to read itself, not in `but`."""
        for name in self.other:
            if name not in but:
                raise UsageError(f"`{name}` does not work with `wasmforge {command}`: it is a setting of `run`")

    def make_config(self) -> Config:
        """Raises UsageError for a setting that the configuration refuses."""
        from wasmforge.config import Config
        from wasmforge.syntax.errors import WasmtimeError

        config = Config()
        for name, (option, value) in self.config.items():
            try:
                setattr(config, name, value)
            except WasmtimeError as error:
                raise UsageError(f"`{option}` does not work in wasmforge: {error}") from None
        return config


def parse_groups(parsed: Parsed) -> Settings:
    """The settings of all groups.

    Raises:
        UsageError: one is unknown, malformed, or does not work here.
        HelpRequest: `-X help` was given.
    """
    settings = Settings()
    path = parsed.last("--config")
    if path is not None:
        _apply_file(settings, path)
    for short, (name, _, _) in GROUPS.items():
        for text in parsed.all(name):
            for part in text.split(","):
                _apply(settings, short, part)
    return settings


def _apply_file(settings: Settings, path: str) -> None:
    """The settings of a configuration file (Wasmtime's `--config`): a table a group, with the same keys."""
    import tomllib

    try:
        with open(path, "rb") as file:
            contents = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"failed to read configuration file `{path}`: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"failed to parse configuration file `{path}`: {error}") from None
    for name, table in contents.items():
        if name not in _TABLES or not isinstance(table, dict):
            expected = ", ".join(_TABLES)
            raise UsageError(f"configuration file `{path}`: unknown table `{name}`, expected one of {expected}")
        for key, value in table.items():
            for item in value if isinstance(value, list) else [value]:
                if not isinstance(item, (bool, int, float, str)):
                    raise UsageError(f"configuration file `{path}`: `{key}` must be a boolean, a number or a string")
                text = ("n", "y")[item] if isinstance(item, bool) else str(item)
                _apply(settings, _TABLES[name], f"{key}={text}")


def _apply(settings: Settings, group: str, part: str) -> None:
    key, equals, rest = part.partition("=")
    value = rest if equals else None
    if key in ("help", "help-long"):
        raise HelpRequest(_describe(group))
    for setting in SETTINGS[group]:
        if setting.name == key:
            parsed = setting.parse(key, value)
            if setting.implies is not None:
                settings.config[setting.implies] = (f"{group} {part}", True)
            if setting.repeat:
                settings.other.setdefault(key, []).append(parsed)
            elif setting.config is None:
                settings.other[key] = parsed
            else:
                settings.config[setting.config] = (f"{group} {part}", parsed)
            return
    known = key in _NOT_HERE[group].split()
    if known and key in _OFF_HERE.split() and value in ("n", "no", "false"):
        return
    if known or (group == "-C" and key.startswith("cranelift-")):
        raise UsageError(f"`{group} {key}` does not work in this version of wasmforge; `{group} help` lists what does")
    raise UsageError(f"unknown {group} option: {key}; `{group} help` lists what exists")


class HelpRequest(Exception):
    """Somebody asked what there is; `args[0]` is the answer."""


def _describe(group: str) -> str:
    title = GROUPS[group][2]
    rows = [f"  {group} {setting.name:>26}{setting.help}" for setting in SETTINGS[group]]
    return f"Available {title} options:\n\n" + "\n".join(rows)
