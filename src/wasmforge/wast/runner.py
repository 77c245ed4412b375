"""Runs scripts of the test suites against an implementation of the embedder's API.

The API is a parameter, any module with the names of the `wasmtime` package: normally this package, in tests also the
original, which shows that the runner and not the runtime is right. The command line and the tests consume
`run_script` and `FileResult`.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, field
from typing import Any, Final

from wasmforge.binary import features
from wasmforge.syntax.errors import MalformedError, UnsupportedFeatureError, WasmtimeError
from wasmforge.syntax.features import KNOBS
from wasmforge.text import ParseError
from wasmforge.validation import InvalidError
from wasmforge.wast.script import (
    Action,
    AssertBadModule,
    AssertReturn,
    AssertTrap,
    BadCommand,
    Command,
    DefineModule,
    Do,
    Either,
    InstantiateModule,
    ModuleForm,
    NanPattern,
    Pattern,
    Register,
    Thread,
    Value,
    VectorPattern,
    Wait,
    commands,
)

__all__ = ["Failure", "FileResult", "Runner", "all_proposals", "run_script"]

EQUIVALENT_TEXTS: Final[dict[str, tuple[str, ...]]] = {
    # The index behind the text is that of the element, which Wasmtime's trap does not carry.
    "uninitialized element 2": ("uninitialized element",),
    # Wasmtime has one trap for all uses of a null reference.
    "null function reference": ("null reference",),
    "i32 constant out of range": ("memory size must be at most",),
}
"""Texts of the suite, and what this project says in their place. Everything else must contain the suite's text."""

MOVED_TO_VALIDATION: Final = frozenset({"i32 constant out of range"})
"""What was malformed before memory64, and is invalid since: sizes take 64 bits in the text. Older scripts (those of the
threads proposal) expect the first."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A command that did not do what the script says. `feature` is the proposal that it waits for, if that is why."""

    line: int
    reason: str
    feature: str | None = None


@dataclass(slots=True)
class FileResult:
    """What came of a script: `passed` counts commands of every kind, `elapsed` is in seconds."""

    filename: str
    passed: int = 0
    failures: list[Failure] = field(default_factory=list)
    elapsed: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.failures

    @property
    def features(self) -> list[str]:
        """The proposals that the file waits for."""
        return sorted({f.feature for f in self.failures if f.feature is not None})

    def __str__(self) -> str:
        if self.ok:
            return f"{self.filename}: {self.passed} passed in {self.elapsed:.2f} s"
        waits = f", waits for {', '.join(self.features)}" if self.features else ""
        return f"{self.filename}: {len(self.failures)} failed, {self.passed} passed in {self.elapsed:.2f} s{waits}"


class _CommandFailedError(Exception):
    def __init__(self, reason: str, feature: str | None = None) -> None:
        super().__init__(reason)
        self.feature = feature


@dataclass(frozen=True, slots=True)
class _Broken:
    """Stands for an instance or a module that could not be made, and says why to whoever needs it."""

    failure: _CommandFailedError


def run_script(
    source: str | bytes, filename: str, api: Any = None, config: Any = None, stop_at: int | None = None
) -> FileResult:
    """Runs a script.

    `api` is the implementation, this package when None; `config` an `api.Config` for the engine. `stop_at` is the
    number of failures after which to stop. Never raises for what is wrong with the script or the implementation.
    """
    return Runner(api, config).run(source, filename, stop_at)


def all_proposals(config: Any) -> Any:
    """Switches on, in an `api.Config`, the proposals that are off by default and that scripts use."""
    for knob in KNOBS.values():
        if not knob.default and hasattr(type(config), knob.setting):
            setattr(config, knob.setting, True)
    config.shared_memory = True
    return config


class Runner:
    """Runs scripts, all in one engine, each in a store of its own."""

    def __init__(self, api: Any = None, config: Any = None) -> None:
        if api is None:
            import wasmforge as api
        self.api = api
        if config is None and hasattr(api, "Config"):
            config = all_proposals(api.Config())
        self.engine = api.Engine() if config is None else api.Engine(config)

    def run(self, source: str | bytes, filename: str, stop_at: int | None = None) -> FileResult:
        """As `run_script`."""
        result = FileResult(filename)
        start = time.perf_counter()
        script: _Script | None = None
        try:
            script = _Script(self.api, self.engine)
            for command in commands(source, filename):
                failure = script.execute(command)
                if failure is None:
                    result.passed += 1
                else:
                    result.failures.append(failure)
                    if stop_at is not None and len(result.failures) >= stop_at:
                        break
        except ParseError as e:
            result.failures.append(Failure(e.line, str(e)))
        except Exception as e:
            result.failures.append(Failure(0, f"the script cannot run: {_describe(e)}"))
        result.elapsed = time.perf_counter() - start
        return result


class _Script:
    """The state of a running script: a store, what is registered, modules and instances by identifier."""

    def __init__(self, api: Any, engine: Any) -> None:
        self.api = api
        self.engine = engine
        self.store = api.Store(engine)
        self.linker = api.Linker(engine)
        self.linker.allow_shadowing = True
        # By identifier; the empty one is the most recent.
        self.modules: dict[str, Any] = {}
        self.instances: dict[str, Any] = {}
        self.exports: dict[int, Any] = {}
        self.traps = (api.Trap,)
        self.errors = (api.WasmtimeError, api.Trap, WasmtimeError)
        _define_spectest(api, self.store, self.linker)

    def execute(self, command: Command) -> Failure | None:
        """Runs a command; None when it did what it says."""
        try:
            self._dispatch(command)
        except _CommandFailedError as e:
            return Failure(command.line, str(e), e.feature)
        except UnsupportedFeatureError as e:
            return Failure(command.line, _describe(e), e.feature)
        except Exception as e:  # whatever an implementation does wrong is a failure of this command, not of the run
            return Failure(command.line, _describe(e), _feature_of(e))
        return None

    def _dispatch(self, command: Command) -> None:
        if isinstance(command, AssertReturn):
            self._assert_return(command)
        elif isinstance(command, AssertTrap):
            self._assert_trap(command)
        elif isinstance(command, AssertBadModule):
            self._assert_bad_module(command)
        elif isinstance(command, DefineModule):
            self._define(command)
        elif isinstance(command, InstantiateModule):
            self._instance(command.instance, self._look_up(self.modules, command.module, "module"))
        elif isinstance(command, Register):
            instance = self._look_up(self.instances, command.instance, "instance")
            self.linker.define_instance(self.store, command.name, instance)
        elif isinstance(command, Do):
            self._perform(command.action)
        elif isinstance(command, BadCommand):
            raise command.error
        elif isinstance(command, (Thread, Wait)):
            raise _CommandFailedError("threads are not supported yet", features.THREADS)

    # Modules

    def _define(self, command: DefineModule) -> None:
        identifier = command.module.identifier
        try:
            module = self._compile(command.module)
        except Exception as e:
            broken = _Broken(_CommandFailedError(f"its module failed: {_describe(e)}", _feature_of(e)))
            for table in (self.modules, self.instances) if command.instantiate else (self.modules,):
                table[identifier] = table[""] = broken
            raise
        self.modules[identifier] = self.modules[""] = module
        if command.instantiate:
            self._instance(identifier, module)

    def _compile(self, module: ModuleForm) -> Any:
        # A bytearray is never taken for text, as bytes without the magic number would be.
        return self.api.Module(self.engine, bytearray(module.encoded()))

    def _instance(self, identifier: str, module: Any) -> None:
        try:
            instance = self.linker.instantiate(self.store, module)
        except Exception as e:
            broken = _Broken(_CommandFailedError(f"its instantiation failed: {_describe(e)}", _feature_of(e)))
            self.instances[identifier] = self.instances[""] = broken
            raise
        self.instances[identifier] = self.instances[""] = instance

    def _look_up(self, table: dict[str, Any], identifier: str, what: str) -> Any:
        found = table.get(identifier)
        if found is None:
            raise _CommandFailedError(f"unknown {what} {identifier}" if identifier else f"no {what}")
        if isinstance(found, _Broken):
            raise found.failure
        return found

    # Actions

    def _perform(self, action: Action, references: bool = False) -> list[Any]:
        """The results of an action: bit patterns where the API offers them, else Python values.

        Bit patterns keep the payloads of NaNs, but are no way to give or get a reference: `references` tells that
        some are expected.
        """
        instance = self._look_up(self.instances, action.instance, "instance")
        item = instance.exports(self.store)[action.export]
        if action.arguments is None:
            return [item.value(self.store)]
        call_raw = getattr(item, "call_raw", None)
        if call_raw is not None and not references and not any(map(_is_reference, action.arguments)):
            raw: list[Any] = call_raw(self.store, [v.bits for v in action.arguments])
            return raw
        results = item(self.store, *[_python_value(v) for v in action.arguments])
        if results is None and not item.type(self.store).results:
            return []
        return results if isinstance(results, list) else [results]

    def _assert_return(self, command: AssertReturn) -> None:
        expected = command.expected
        results = self._perform(command.action, any(map(_is_reference, expected)))
        if len(results) != len(expected):
            raise _CommandFailedError(f"{len(results)} results where {len(expected)} are expected")
        for k, (result, pattern) in enumerate(zip(results, expected, strict=True)):
            if not self._matches(result, pattern):
                raise _CommandFailedError(f"result {k} is {_shown(result)}, expected {pattern}")

    def _matches(self, result: Any, pattern: Pattern) -> bool:
        if isinstance(pattern, Either):
            return any(self._matches(result, choice) for choice in pattern.choices)
        if isinstance(pattern, NanPattern):
            bits = _bits(result, pattern.type)
            return bits is not None and _is_nan(bits, pattern)
        if isinstance(pattern, VectorPattern):
            bits = _bits(result, "v128")
            return bits is not None and _lanes_match(bits, pattern)
        if pattern.type == "ref.null":
            return result is None
        if pattern.type == "ref.func":
            return isinstance(result, self.api.Func)
        if pattern.type in ("ref.extern", "ref.host"):
            return result is not None and (pattern.bits is None or bool(result == pattern.bits))
        if pattern.type.startswith("ref."):
            return result is not None
        return _bits(result, pattern.type) == pattern.bits

    # Assertions about what must fail

    def _assert_trap(self, command: AssertTrap) -> None:
        if command.kind not in ("trap", "exhaustion"):
            feature = features.STACK_SWITCHING if command.kind == "suspension" else features.EXCEPTIONS
            raise _CommandFailedError(f"assert_{command.kind} is not supported yet", feature)
        try:
            if isinstance(command.subject, Action):
                self._perform(command.subject)
            else:
                module = self._compile(command.subject)
                self.linker.instantiate(self.store, module)
        except self.traps as e:
            _check_text(command.text, e)
            return
        raise _CommandFailedError(f"no trap where {command.text!r} is expected")

    def _assert_bad_module(self, command: AssertBadModule) -> None:
        kind = command.kind.removesuffix("_custom")
        try:
            module = self._compile(command.module)
            if kind == "unlinkable":
                self.linker.instantiate(self.store, module)
        except self.errors as e:
            self._check_class(e, kind, command)
            # Another implementation has its own texts.
            if isinstance(e, WasmtimeError):
                _check_text(command.text, e)
            return
        raise _CommandFailedError(f"the module is not {kind}: expected {command.text!r}")

    def _check_class(self, error: Exception, kind: str, command: AssertBadModule) -> None:
        if not isinstance(error, WasmtimeError):
            return
        if isinstance(error, UnsupportedFeatureError):
            raise error
        malformed = isinstance(error, (ParseError, MalformedError))
        invalid = isinstance(error, InvalidError)
        # Rules about custom sections are checked where these are read, so that their violation is malformed text.
        right = {
            "malformed": malformed or (invalid and command.text in MOVED_TO_VALIDATION),
            "invalid": invalid or (malformed and command.kind == "invalid_custom"),
            "unlinkable": not malformed and not invalid,
        }
        if not right[kind]:
            raise _CommandFailedError(f"{kind} is expected, the error is: {_describe(error)}", _feature_of(error))


def _check_text(expected: str, error: Exception) -> None:
    message = str(error)
    if expected not in message and not any(text in message for text in EQUIVALENT_TEXTS.get(expected, ())):
        raise _CommandFailedError(f"{expected!r} is expected, the error is: {_describe(error)}", _feature_of(error))


def _feature_of(error: Exception) -> str | None:
    """The proposal that an error is about, where it says so."""
    return getattr(error, "feature", None)


def _describe(error: Exception) -> str:
    """An error on one line."""
    if isinstance(error, ParseError):
        return f"ParseError: {error.reason} (line {error.line}, column {error.column})"
    lines = str(error).splitlines() or [""]
    # The message of a trap begins with the backtrace; what happened stands at its end.
    trap = [line.strip() for line in lines if "wasm trap:" in line]
    return f"{type(error).__name__}: {trap[-1] if trap else lines[0]}"


def _shown(result: Any) -> str:
    return f"{result:#x}" if isinstance(result, int) else repr(result)


# Values

_PACKING: Final = {"f32": ("<f", "<I"), "f64": ("<d", "<Q")}
_MASKS: Final = {"i32": 0xFFFF_FFFF, "i64": 0xFFFF_FFFF_FFFF_FFFF}
_QUIET_NAN: Final = {"f32": 0x7FC0_0000, "f64": 0x7FF8_0000_0000_0000}
_SIGN: Final = {"f32": 1 << 31, "f64": 1 << 63}


def _is_reference(pattern: Pattern) -> bool:
    return isinstance(pattern, Value) and pattern.type.startswith("ref.")


def _python_value(value: Value) -> Any:
    bits = value.bits
    if bits is None or value.type.startswith("ref."):
        return None if value.type == "ref.null" else bits
    if value.type == "v128":
        return bits.to_bytes(16, "little")
    if value.type in _MASKS:
        size = int(value.type[1:])
        return bits - (1 << size) if bits >> (size - 1) else bits
    pack, pack_integer = _PACKING[value.type]
    return struct.unpack(pack, struct.pack(pack_integer, bits))[0]


def _bits(result: Any, type_: str) -> int | None:
    """The bit pattern of a result; None when the result is no number of that type."""
    if isinstance(result, float):
        if type_ not in _PACKING:
            return None
        pack, pack_integer = _PACKING[type_]
        try:
            return int(struct.unpack(pack_integer, struct.pack(pack, result))[0])
        except OverflowError:
            return None
    if isinstance(result, bytes):
        return int.from_bytes(result, "little") if type_ == "v128" else None
    if not isinstance(result, int):
        return None
    return result & _MASKS[type_] if type_ in _MASKS else result


def _is_nan(bits: int, pattern: NanPattern) -> bool:
    magnitude = bits & ~_SIGN[pattern.type]
    quiet = _QUIET_NAN[pattern.type]
    return magnitude == quiet if pattern.kind == "canonical" else magnitude & quiet == quiet


def _lanes_match(bits: int, pattern: VectorPattern) -> bool:
    size = int(pattern.type[1:])
    for k, lane in enumerate(pattern.lanes):
        found = bits >> k * size & (1 << size) - 1
        if found != lane if isinstance(lane, int) else not _is_nan(found, NanPattern(pattern.type, lane)):
            return False
    return True


# The module that every script may import from

_PRINTERS: Final = {
    "print": (),
    "print_i32": ("i32",),
    "print_i64": ("i64",),
    "print_f32": ("f32",),
    "print_f64": ("f64",),
    "print_i32_f32": ("i32", "f32"),
    "print_f64_f64": ("f64", "f64"),
}
_GLOBALS: Final = {"i32": 666, "i64": 666, "f32": 666.6, "f64": 666.6}


def _ignore(*arguments: object) -> None:
    """The print functions of `spectest` print nothing: a test suite is read for its verdict."""


def _define_spectest(api: Any, store: Any, linker: Any) -> None:
    """Defines the host module `spectest` of the reference interpreter."""
    for name, params in _PRINTERS.items():
        ft = api.FuncType([getattr(api.ValType, t)() for t in params], [])
        linker.define(store, "spectest", name, api.Func(store, ft, _ignore))
    for t, value in _GLOBALS.items():
        gt = api.GlobalType(getattr(api.ValType, t)(), False)
        linker.define(store, "spectest", f"global_{t}", api.Global(store, gt, value))
    table = api.Table(store, api.TableType(api.ValType.funcref(), api.Limits(10, 20)), None)
    linker.define(store, "spectest", "table", table)
    if hasattr(api.TableType, "is_64"):  # the wasmtime package cannot make it
        wide = api.Table(store, api.TableType(api.ValType.funcref(), api.Limits(10, 20), is_64=True), None)
        linker.define(store, "spectest", "table64", wide)
    memory = api.Memory(store, api.MemoryType(api.Limits(1, 2)))
    linker.define(store, "spectest", "memory", memory)
    try:
        shared = api.SharedMemory(store.engine, api.MemoryType(api.Limits(1, 2), shared=True))
        linker.define(store, "spectest", "shared_memory", shared)
    except (api.WasmtimeError, TypeError):
        pass  # switched off; and the wasmtime package fails to define one
