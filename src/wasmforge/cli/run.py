"""`wasmforge run`, also without its name: runs a command, or calls a function of a module."""

from __future__ import annotations

import os
import sys

from wasmforge.cli.errors import CommandError, UsageError
from wasmforge.cli.options import Option, parse
from wasmforge.cli.settings import GROUP_OPTIONS, Settings, parse_groups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from wasmforge.cli.options import Parsed
    from wasmforge.instance import Instance
    from wasmforge.linker import Linker
    from wasmforge.module import Module
    from wasmforge.store import Store
    from wasmforge.types import FuncType
    from wasmforge.wasi.context import WasiContext
    from wasmforge.wasi.descriptors import Descriptor

__all__ = ["HELP", "OPTIONS", "main"]

SUMMARY = "Runs a WebAssembly module"
USAGE = "wasmforge run [OPTIONS] <WASM> [ARGS]..."
HELP = "The module is a file (binary, text, or compiled), or - for standard input; ARGS are the program's."

OPTIONS = (
    *GROUP_OPTIONS,
    Option("--allow-precompiled", "accept an image made by `wasmforge compile`: it runs with all your rights"),
    Option("--dir", "give the program a directory", value="HOST_DIR[::GUEST_DIR]", repeat=True),
    Option("--env", "give the program an environment variable", value="NAME[=VAL]", repeat=True),
    Option("--invoke", "call this exported function; ARGS are its parameters", value="FUNCTION"),
    Option(
        "--preload", "load a module first, whose exports NAME the main module imports", value="NAME=FILE", repeat=True
    ),
    Option("--argv0", "the program's name as it sees it", value="NAME"),
    Option("--tiers", "tell on standard error, after the run, which functions ran in which tier"),
    Option("--profile", "tell Linux perf which function is where", value="jitdump|perfmap"),
    Option("--target", "", value="TRIPLE", unsupported="modules run on this machine; use `wasmforge compile`"),
)


def main(argv: Sequence[str]) -> int:
    parsed = parse(argv, OPTIONS, stop_at_argument=True)
    settings = parse_groups(parsed)
    if not parsed.arguments:
        raise UsageError("the following required arguments were not provided:\n  <WASM>")
    preloads = [_preload(text) for text in parsed.all("--preload")]
    profile = None
    if (strategy := parsed.last("--profile")) is not None:
        from wasmforge.cli.profile import Profile

        profile = Profile(strategy)
    from wasmforge._start import import_together

    import_together("engine", "linker", "wasi")
    config = settings.make_config()
    run = _Run(parsed, settings)
    try:
        return run.run(config, preloads)
    except KeyboardInterrupt:
        raise
    except UsageError:
        raise
    finally:
        if parsed.flag("--tiers"):
            from wasmforge.cli.tiers import report

            sys.stdout.flush()
            sys.stderr.write(report(run.modules))
        if profile is not None:
            profile.write(run.modules)


def _preload(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise UsageError(f"--preload must contain exactly one equals character, NAME=FILE: `{text}`")
    return name, path


class _Run:
    """One run: what was asked for."""

    def __init__(self, parsed: Parsed, settings: Settings) -> None:
        self._parsed = parsed
        self._settings = settings
        self._path = parsed.arguments[0]
        self._arguments = parsed.arguments[1:]
        self.modules: list[tuple[str, Module]] = []
        """With their paths, the main module first."""

    def run(self, config: Any, preloads: list[tuple[str, str]]) -> int:
        from wasmforge.cli.limits import limit
        from wasmforge.cli.modules import load_file
        from wasmforge.engine import Engine
        from wasmforge.linker import Linker
        from wasmforge.store import Store, store_data
        from wasmforge.syntax.errors import WasmtimeError

        allow_precompiled = self._parsed.flag("--allow-precompiled")
        engine = Engine(config)
        try:
            module = load_file(engine, self._path, allow_precompiled)
        except (OSError, WasmtimeError, CommandError) as error:
            if isinstance(error, CommandError):
                raise
            raise CommandError.during(f"failed to load `{self._path}`", error) from None
        self.modules.append((self._path, module))
        store = Store(engine)
        limit(store, self._settings)
        linker = Linker(engine)
        if self._settings.other.get("cli", self._settings.other.get("common", True)):
            try:
                from wasmforge.wasi.preview1 import add_to_linker

                add_to_linker(linker, preview0=self._settings.other.get("preview0", True))
                store_data(store).wasi = self._wasi()
            except (OSError, ValueError) as error:
                raise CommandError.during("failed to set up WASI", error) from None
        for name, path in preloads:
            try:
                preload = load_file(engine, path, allow_precompiled)
                self.modules.append((path, preload))
                linker.define_module(store, name, preload)
            except Exception as error:
                if (status := _exit_status(error)) is not None:
                    return status
                raise CommandError.during(f"failed to process preload `{name}`", error) from None
        try:
            self._run_main(store, linker, module)
        except Exception as error:
            if (status := _exit_status(error)) is not None:
                return status
            if not _is_guest_error(error):
                raise
            what = f"failed to run main module `{self._path}`"
            raise CommandError.during(what, self._dumped(store, error)) from None
        return 0

    def _dumped(self, store: Store, error: Exception) -> Exception:
        """`error`, with the name of the core dump that was written because of it."""
        from wasmforge.trap import Trap

        path = self._settings.other.get("coredump")
        if path is None or not isinstance(error, Trap):
            return error
        from wasmforge.cli.coredump import write
        from wasmforge.runtime.vm.backtrace import Backtrace
        from wasmforge.runtime.vm.traps import backtrace_of

        backtrace = backtrace_of(error)
        try:
            path = write(path, self._path, store._context(), backtrace if isinstance(backtrace, Backtrace) else None)
        except OSError as failure:
            _warn(f"coredump failed to generate: {failure}")
            return error
        return CommandError.during(f"core dumped at {path}", error)

    def _run_main(self, store: Store, linker: Linker, module: Module) -> None:
        if not self._settings.other.get("threads"):
            self._define_unknown_imports(linker, store, module)
            self._run_in_time(store, linker, module)
            return
        with linker.define_wasi_threads(store, module):
            self._define_unknown_imports(linker, store, module)
            self._run_in_time(store, linker, module)

    def _run_in_time(self, store: Store, linker: Linker, module: Module) -> None:
        timeout = self._settings.other.get("timeout")
        if timeout is None:
            self._call_main(store, linker.instantiate(store, module))
            return
        from wasmforge.compiler.trap import TrapKind
        from wasmforge.runtime.deadline import Deadline
        from wasmforge.runtime.vm.traps import trap

        with Deadline(store._context(), timeout, lambda: trap(TrapKind.INTERRUPT)):
            self._call_main(store, linker.instantiate(store, module))

    def _wasi(self) -> WasiContext:
        """What the program gets: its arguments, the standard streams, and what the options name."""
        from wasmforge.wasi.context import WasiContext
        from wasmforge.wasi.descriptors import HostInput, HostOutput

        name = self._parsed.last("--argv0") or os.path.basename(self._path)
        streams = (HostInput(0, owned=False), HostOutput(1, owned=False), HostOutput(2, owned=False))
        context = WasiContext([name, *self._arguments], self._environment(), streams)
        addresses = self._settings.other.get("tcplisten", ())
        for address in addresses:
            context.preopen(_listen(address, bool(self._parsed.all("--dir"))))
        for text in self._parsed.all("--dir"):
            from wasmforge.wasi.files import READ, WRITE
            from wasmforge.wasi.host_files import HostDirectory

            host, separator, guest = text.partition("::")
            name = guest if separator else host
            try:
                directory = HostDirectory.preopen(host, os.fsencode(name), READ | WRITE, READ | WRITE)
            except OSError as error:
                raise CommandError.during(f"failed to open directory `{host}`", error) from None
            context.preopen(directory)
        return context

    def _environment(self) -> list[tuple[str, str]]:
        variables: dict[str, str] = dict(os.environ) if self._settings.other.get("inherit-env") else {}
        for text in self._parsed.all("--env"):
            name, equals, value = text.partition("=")
            if equals:
                variables[name] = value
            elif name in os.environ:
                variables[name] = os.environ[name]
            else:
                raise CommandError(f"environment variable `{name}` not found")
        return list(variables.items())

    def _define_unknown_imports(self, linker: Linker, store: Store, module: Module) -> None:
        settings = self._settings.other
        if settings.get("unknown-imports-trap"):
            make = _trapping
        elif settings.get("unknown-imports-default"):
            make = _defaulting
        else:
            return
        from wasmforge.syntax.errors import WasmtimeError
        from wasmforge.types import FuncType

        for wanted in module.imports:
            name = wanted.name or ""
            if not isinstance(wanted.type, FuncType):
                continue
            try:
                linker.get(store, wanted.module, name)
            except WasmtimeError:
                linker.define_func(wanted.module, name, wanted.type, make(wanted.module, name, wanted.type))

    def _call_main(self, store: Store, instance: Instance) -> None:
        """Reactors are initialised; then the function that was asked for is called, else "" or `_start`."""
        from wasmforge.func_ import Func

        exports = instance.exports(store)
        initialize = exports.get("_initialize")
        if isinstance(initialize, Func):
            initialize(store)
        name = self._parsed.last("--invoke")
        if name is not None:
            function = exports.get(name)
            if not isinstance(function, Func):
                raise CommandError(f"no func export named `{name}` found")
            self._invoke(store, function, name)
            return
        for candidate in ("", "_start"):
            function = exports.get(candidate)
            if isinstance(function, Func):
                self._invoke(store, function, None)
                return

    def _invoke(self, store: Store, function: Any, name: str | None) -> None:
        from wasmforge.cli.values import format_result, parse_argument

        what = f"`{name}`" if name is not None else "command default"
        ty = function.type(store)
        params = ty.params
        if params:
            _warn("using `--invoke` with a function that takes arguments is experimental and may break in the future")
        if len(self._arguments) < len(params):
            raise CommandError(f"not enough arguments for {what}")
        values = [parse_argument(str(t), text) for t, text in zip(params, self._arguments, strict=False)]
        try:
            results = function(store, *values)
        except Exception as error:
            if _exit_status(error) is not None or not _is_guest_error(error):
                raise
            raise CommandError.during(f"failed to invoke {what}", self._dumped(store, error)) from None
        types = ty.results
        if not types:
            return
        _warn("using `--invoke` with a function that returns values is experimental and may break in the future")
        for t, value in zip(types, results if len(types) > 1 else [results], strict=True):
            print(format_result(str(t), value))


def _listen(address: str, directories_follow: bool) -> Descriptor:
    """A socket that listens at `host:port`, as the guest gets it."""
    import socket

    from wasmforge.wasi.sockets import preopened

    what = f"failed to listen at `{address}`"
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 0xFFFF:
        raise CommandError(what, ["expected ADDRESS:PORT"])
    try:
        family, _, _, _, resolved = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.create_server(resolved[:2], family=family) as listening:
            opened = preopened(listening)
    except OSError as error:
        raise CommandError.during(what, error) from None
    if directories_follow:
        opened.expect_directories()
    return opened


def _warn(text: str) -> None:
    sys.stderr.write(f"warning: {text}\n")


def _exit_status(error: BaseException) -> int | None:
    """The status of a program that ended itself."""
    trap = sys.modules.get("wasmforge.trap")  # not imported: then nothing exited
    if trap is not None and isinstance(error, trap.ExitTrap):
        return int(error.code)
    return None


def _is_guest_error(error: BaseException) -> bool:
    """Whether it is about the guest; anything else is a bug of ours and shall show its traceback."""
    from wasmforge.syntax.errors import WasmtimeError
    from wasmforge.trap import Trap

    return isinstance(error, (WasmtimeError, Trap, CommandError))


def _trapping(module: str, name: str, ty: FuncType) -> Callable[..., Any]:
    def missing(*_: object) -> None:
        from wasmforge.trap import Trap

        raise Trap(f"unknown import: `{module}::{name}` has not been defined")

    return missing


def _defaulting(module: str, name: str, ty: FuncType) -> Callable[..., Any]:
    zeros = {"i32": 0, "i64": 0, "f32": 0.0, "f64": 0.0}
    results = [zeros.get(str(t)) for t in ty.results]
    default = None if not results else results[0] if len(results) == 1 else results

    def missing(*_: object) -> Any:
        return default

    return missing
