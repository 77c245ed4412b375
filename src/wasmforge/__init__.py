"""Wasmforge: a WebAssembly runtime for Python, written in Python.

The short way is `load`: `wasmforge.load("app.wasm").add(1, 2)`. The long way has the names and the behaviour of the
`wasmtime` package: `Engine`, `Store`, `Module`, `Linker`, `Instance`, `Func`, `Memory` and so on.

Names are imported when they are first used (PEP 562), so that `import wasmforge` costs next to nothing and a process
that maps a compiled image never loads a parser or a compiler.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasmforge.config import Config as Config
    from wasmforge.engine import Engine as Engine
    from wasmforge.func_ import Caller as Caller
    from wasmforge.func_ import Func as Func
    from wasmforge.globals_ import Global as Global
    from wasmforge.host_function import HostFunction as HostFunction
    from wasmforge.host_function import externref as externref
    from wasmforge.host_function import f32 as f32
    from wasmforge.host_function import f64 as f64
    from wasmforge.host_function import func as func
    from wasmforge.host_function import funcref as funcref
    from wasmforge.host_function import i32 as i32
    from wasmforge.host_function import i64 as i64
    from wasmforge.host_function import v128 as v128
    from wasmforge.instance import Instance as Instance
    from wasmforge.linker import Linker as Linker
    from wasmforge.loading import call_async as call_async
    from wasmforge.loading import load as load
    from wasmforge.loading import load_async as load_async
    from wasmforge.memory import Memory as Memory
    from wasmforge.module import Module as Module
    from wasmforge.sharedmemory import SharedMemory as SharedMemory
    from wasmforge.store import Store as Store
    from wasmforge.syntax.errors import WasmtimeError as WasmtimeError
    from wasmforge.table import Table as Table
    from wasmforge.text import wat2wasm as wat2wasm
    from wasmforge.timeouts import CallTimeout as CallTimeout
    from wasmforge.trap import ExitTrap as ExitTrap
    from wasmforge.trap import Frame as Frame
    from wasmforge.trap import Trap as Trap
    from wasmforge.trap import TrapCode as TrapCode
    from wasmforge.types import ExportType as ExportType
    from wasmforge.types import FuncType as FuncType
    from wasmforge.types import GlobalType as GlobalType
    from wasmforge.types import ImportType as ImportType
    from wasmforge.types import Limits as Limits
    from wasmforge.types import MemoryType as MemoryType
    from wasmforge.types import TableType as TableType
    from wasmforge.types import ValType as ValType
    from wasmforge.values import Val as Val
    from wasmforge.wasi import Clocks as Clocks
    from wasmforge.wasi import DirPerms as DirPerms
    from wasmforge.wasi import FilePerms as FilePerms
    from wasmforge.wasi import FixedClocks as FixedClocks
    from wasmforge.wasi import FsspecDirectory as FsspecDirectory
    from wasmforge.wasi import MemoryDirectory as MemoryDirectory
    from wasmforge.wasi import Symlink as Symlink
    from wasmforge.wasi import WasiConfig as WasiConfig
    from wasmforge.wasi import ZipDirectory as ZipDirectory
    from wasmforge.wasi.sandbox import CompletedRun as CompletedRun
    from wasmforge.wasi.sandbox import LimitExceeded as LimitExceeded
    from wasmforge.wasi.sandbox import MemoryLimitExceeded as MemoryLimitExceeded
    from wasmforge.wasi.sandbox import OpenFilesLimitExceeded as OpenFilesLimitExceeded
    from wasmforge.wasi.sandbox import OutputLimitExceeded as OutputLimitExceeded
    from wasmforge.wasi.sandbox import TimeoutExpired as TimeoutExpired
    from wasmforge.wasi.sandbox import run as run

    __version__: str


__all__ = [
    "CallTimeout",
    "Caller",
    "Clocks",
    "CompletedRun",
    "Config",
    "DirPerms",
    "Engine",
    "ExitTrap",
    "ExportType",
    "FilePerms",
    "FixedClocks",
    "Frame",
    "FsspecDirectory",
    "Func",
    "FuncType",
    "Global",
    "GlobalType",
    "HostFunction",
    "ImportType",
    "Instance",
    "LimitExceeded",
    "Limits",
    "Linker",
    "Memory",
    "MemoryDirectory",
    "MemoryLimitExceeded",
    "MemoryType",
    "Module",
    "OpenFilesLimitExceeded",
    "OutputLimitExceeded",
    "SharedMemory",
    "Store",
    "Symlink",
    "Table",
    "TableType",
    "TimeoutExpired",
    "Trap",
    "TrapCode",
    "Val",
    "ValType",
    "WasiConfig",
    "WasmtimeError",
    "ZipDirectory",
    "call_async",
    "externref",
    "f32",
    "f64",
    "func",
    "funcref",
    "i32",
    "i64",
    "load",
    "load_async",
    "run",
    "v128",
    "wat2wasm",
]

# The module that each public name is defined in. `load` is not in a module `load`: importing a submodule binds its
# name here, and would hide the function.
_MODULES = {
    "CallTimeout": "timeouts",
    "Caller": "func_",
    "Clocks": "wasi",
    "CompletedRun": "wasi.sandbox",
    "Config": "config",
    "DirPerms": "wasi",
    "Engine": "engine",
    "ExitTrap": "trap",
    "ExportType": "types",
    "FilePerms": "wasi",
    "FixedClocks": "wasi",
    "Frame": "trap",
    "FsspecDirectory": "wasi",
    "Func": "func_",
    "FuncType": "types",
    "Global": "globals_",
    "GlobalType": "types",
    "HostFunction": "host_function",
    "ImportType": "types",
    "Instance": "instance",
    "LimitExceeded": "wasi.sandbox",
    "Limits": "types",
    "Linker": "linker",
    "Memory": "memory",
    "MemoryDirectory": "wasi",
    "MemoryLimitExceeded": "wasi.sandbox",
    "MemoryType": "types",
    "Module": "module",
    "OpenFilesLimitExceeded": "wasi.sandbox",
    "OutputLimitExceeded": "wasi.sandbox",
    "SharedMemory": "sharedmemory",
    "Store": "store",
    "Symlink": "wasi",
    "Table": "table",
    "TableType": "types",
    "TimeoutExpired": "wasi.sandbox",
    "Trap": "trap",
    "TrapCode": "trap",
    "Val": "values",
    "ValType": "types",
    "WasiConfig": "wasi",
    "WasmtimeError": "syntax.errors",
    "ZipDirectory": "wasi",
    "call_async": "loading",
    "externref": "host_function",
    "f32": "host_function",
    "f64": "host_function",
    "func": "host_function",
    "funcref": "host_function",
    "i32": "host_function",
    "i64": "host_function",
    "load": "loading",
    "load_async": "loading",
    "run": "wasi.sandbox",
    "v128": "host_function",
    "wat2wasm": "text",
}


# The groups of modules (`_start_groups`) that a module comes with.
_GROUPS = {
    "engine": ("engine",),
    "linker": ("engine", "linker"),
    "loading": ("engine", "linker", "loading"),
    "wasi": ("engine", "linker", "wasi", "config"),
    "wasi.sandbox": ("engine", "linker", "wasi", "config"),
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        if name == "__version__":
            from wasmforge.version import VERSION

            return VERSION
        raise AttributeError(f"module 'wasmforge' has no attribute {name!r}")
    # Not importlib.import_module: importing importlib takes longer than most of our modules.
    groups = _GROUPS.get(module)
    if groups is not None:
        from wasmforge._start import import_together

        import_together(*groups)
    value: object = getattr(__import__(f"wasmforge.{module}", fromlist=(name,)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, "__version__"})
