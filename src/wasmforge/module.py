"""`Module`: compiled code with its record of imports and exports, made from WebAssembly or mapped from an image."""

from __future__ import annotations

from wasmforge._managed import Managed
from wasmforge.engine import Engine
from wasmforge.runtime import CompiledModule
from wasmforge.syntax.errors import WasmtimeError, WrongTypeError
from wasmforge.syntax.types import ExternKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from wasmforge.runtime.cache.known import KnownFile
    from wasmforge.types import ExportType, ExternType, ImportType

__all__ = ["Module"]


class Module(Managed):
    """A compiled module. It belongs to an engine and can be instantiated in any store of that engine, by any thread.

    Parameters:
        engine: the engine that compiles it.
        wasm: the binary (bytes), or the text (str, or bytes that do not start with a NUL).

    Raises:
        WasmtimeError: it is malformed, invalid, or uses a feature that is not supported; the message says where.
        TypeError: an argument has the wrong type.
    """

    _compiled: CompiledModule
    _image: bytes | None = None  # what `pickle` got of a module that has to be compiled for it

    def __init__(self, engine: Engine, wasm: str | bytes | bytearray) -> None:
        _check_engine(engine)
        self._engine = engine
        self._compiled = _load(engine, wasm)

    @classmethod
    def _with_progress(
        cls, engine: Engine, wasm: str | bytes | bytearray, progress: Callable[[int, int], None]
    ) -> Module:
        """As `Module(engine, wasm)`; `progress` is called while it compiles, with the parts that are done and all."""
        return cls._wrap(engine, _load(engine, wasm, progress))

    @classmethod
    def _wrap(cls, engine: Engine, compiled: CompiledModule) -> Module:
        self = cls.__new__(cls)
        self._engine = engine
        self._compiled = compiled
        return self

    @classmethod
    def from_file(cls, engine: Engine, path: str | bytes | PathLike[str] | PathLike[bytes]) -> Module:
        """Compile the file at `path`, binary or text."""
        return cls._from_path(engine, path)

    @classmethod
    def _from_path(
        cls,
        engine: Engine,
        path: str | bytes | PathLike[str] | PathLike[bytes],
        progress: Callable[[int, int], None] | None = None,
        check: Callable[[bytes], None] | None = None,
    ) -> Module:
        """As `from_file`. `progress` is called while it compiles, with the parts that are done and all; `check` with
        the contents, if they have to be read, and may raise."""
        _check_engine(engine)
        with open(path, "rb") as file:
            known = None
            cache = engine._open_cache()
            if cache is not None:
                from wasmforge.runtime.cache.known import KnownFile

                known = KnownFile(cache, file.fileno())
                found = known.load(engine._state)
                if found is not None:
                    return cls._wrap(engine, found)
            contents = file.read()
            if known is not None:
                known.confirm()
            if check is not None:
                check(contents)
            if engine._lazy:
                held = [contents]
                del contents
                return cls._wrap(engine, _load_lazily(engine, held.pop(), known))
            return cls._wrap(engine, _load(engine, contents, progress, known))

    @classmethod
    def deserialize(cls, engine: Engine, encoded: bytes | bytearray) -> Module:
        """Load what `serialize` returned.

        The bytes contain machine code that will run with all rights of this process. They are checked for damage,
        not for malice: load only what you, or someone you trust as much, have made.

        Raises:
            WasmtimeError: they are damaged, or were made by another version, for another processor, or with other
                settings.
        """
        _check_engine(engine)
        if not isinstance(encoded, (bytes, bytearray)):
            raise TypeError("expected bytes")
        return cls._wrap(engine, CompiledModule.from_bytes(engine._state, encoded))

    @classmethod
    def deserialize_file(cls, engine: Engine, path: str | PathLike[str]) -> Module:
        """Load what `serialize` returned from a file. The file is mapped, not read, and must not change while it is in
        use. The same trust is needed as for `deserialize`.

        Raises:
            WasmtimeError: as `deserialize`, or the file cannot be opened.
        """
        _check_engine(engine)
        try:
            return cls._wrap(engine, CompiledModule.from_file(engine._state, path))
        except OSError as e:
            raise WasmtimeError(f"failed to open file {path!s}\n\nCaused by:\n    {e.strerror or e}\n") from e

    @classmethod
    def validate(cls, engine: Engine, wasm: bytes | bytearray) -> None:
        """Check that a binary is a valid module, without compiling it.

        Raises:
            WasmtimeError: it is not; the message says why and where.
        """
        _check_engine(engine)
        if not isinstance(wasm, (bytes, bytearray)):
            raise TypeError("expected wasm bytes")
        from wasmforge import validation
        from wasmforge.binary import decode

        validation.validate(decode(bytes(wasm)), engine._tunables.features)

    def _open(self) -> CompiledModule:
        self._check_open()
        return self._compiled

    def _release(self) -> None:
        del self._compiled
        self._image = None

    @property
    def imports(self) -> list[ImportType]:
        """What the module needs, in the order in which `Instance` wants it."""
        from wasmforge.types import ImportType

        module = self._open()
        return [ImportType._new(i.module, i.name, import_type(module, k)) for k, i in enumerate(module.info.imports)]

    @property
    def exports(self) -> list[ExportType]:
        """What the module offers, in its own order."""
        from wasmforge.types import ExportType

        module = self._open()
        return [ExportType._new(e.name, export_type(module, k)) for k, e in enumerate(module.info.exports)]

    def serialize(self) -> bytearray:
        """The compiled module as bytes: an ELF image with machine code and tables, for `deserialize` or a file."""
        return bytearray(self._open().serialize())

    @property
    def engine(self) -> Engine:
        """The engine that the module belongs to, for instance to make a `Store` for a module that was unpickled."""
        return self._engine

    def __reduce__(self) -> tuple[object, ...]:
        """A module is pickled as its image, with the settings of its engine: `multiprocessing` and
        `concurrent.futures` take it along, and nothing is compiled on the other side. One that was compiled function by
        function is compiled whole for it, once."""
        from wasmforge._pickling import rebuild, settings_of
        from wasmforge.version import VERSION

        compiled = self._open()
        if self._image is None:
            self._image = compiled.serialize()
        return rebuild, (VERSION, settings_of(self._engine), self._image)

    def __repr__(self) -> str:
        if self._closed:
            return "<Module closed>"
        info = self._compiled.info
        name = f" {info.name!r}" if info.name else ""
        return f"<Module{name}: {len(info.imports)} imports, {len(info.exports)} exports>"


def _check_engine(engine: Engine) -> None:
    if not isinstance(engine, Engine):
        raise WrongTypeError("expected an Engine")
    engine._check_open()


def _load(
    engine: Engine,
    wasm: str | bytes | bytearray,
    progress: Callable[[int, int], None] | None = None,
    file: KnownFile | None = None,
) -> CompiledModule:
    """A module that compiles itself while it runs; or, ahead of time, one from the cache, or compiled and then kept
    there. `file` is where it comes from."""
    if engine._lazy:
        return _load_lazily(engine, wasm, file)
    cache = engine._open_cache()
    if cache is None or not isinstance(wasm, (str, bytes, bytearray)):
        return CompiledModule.from_bytes(engine._state, engine._compile(_to_wasm(wasm), progress))
    text = _is_text(wasm)
    if isinstance(wasm, (bytes, bytearray)):
        wasm = bytes(wasm)  # what is hashed must be what is compiled, whatever other threads write meanwhile
    key = cache.key(wasm, "text" if text else "binary")
    found = None if key is None else cache.load(engine._state, key)
    if found is not None:
        if file is not None and key is not None:
            file.remember(key)
        return found
    image = engine._compile(wasm if isinstance(wasm, bytes) and not text else _to_wasm(wasm), progress)
    if key is not None and cache.store(key, image):
        found = cache.load(engine._state, key)  # mapped from the file, its pages are shared with other processes
        if file is not None:
            file.confirm()
            file.remember(key)
    return found or CompiledModule.from_bytes(engine._state, image)


def _load_lazily(engine: Engine, wasm: str | bytes | bytearray, file: KnownFile | None = None) -> CompiledModule:
    """A module that compiles itself while it runs: from the cache with what others have compiled, or anew. `file` is
    where it comes from."""
    cache = engine._open_cache() if isinstance(wasm, (str, bytes, bytearray)) else None
    key = None
    if cache is not None:
        text = _is_text(wasm)
        if isinstance(wasm, bytearray):
            wasm = bytes(wasm)  # what is hashed must be what is compiled, whatever other threads write meanwhile
        key = cache.key(wasm, "text" if text else "binary")
        found = None if key is None else cache.load(engine._state, key, file)
        if found is not None:
            if file is not None and key is not None:
                file.remember(key)
            return found
    from wasmforge._lazy import load, originals_of, parse

    wasm = _to_wasm(wasm)
    parsed = parse(engine._state, wasm)
    originals = None if key is None else originals_of(parsed, wasm)
    del wasm  # when the caller has dropped it too, its memory is there for what follows
    module = load(
        engine._state,
        parsed,
        engine._compile_module,
        originals,
        ahead_if_unsupported=engine._optimises,
        tier_up_threshold=engine._lazy_threshold,
    )
    if cache is not None and key is not None:
        from wasmforge.runtime.cache.growth import keep
        from wasmforge.runtime.lazy_module import LazyModule

        if isinstance(module, LazyModule):
            keep(cache, key, module, file)
    return module


def _is_text(wasm: str | bytes | bytearray) -> bool:
    """A str, and bytes that do not start with the magic's NUL, are text. What is empty is not, so that decoding says
    what is missing."""
    return isinstance(wasm, (str, bytes)) and len(wasm) > 0 and wasm[0] not in (0, "\0")


def _to_wasm(wasm: str | bytes | bytearray) -> bytes:
    """The binary of what may be text."""
    if _is_text(wasm):
        from wasmforge.text import wat2wasm

        return bytes(wat2wasm(wasm))
    if not isinstance(wasm, (bytes, bytearray)):
        raise TypeError("expected wasm bytes")
    return bytes(wasm)


def import_type(module: CompiledModule, k: int) -> ExternType:
    """The type of import `k`."""
    from wasmforge.types import _wrap_extern_type

    ty = module.info.imports[k].type
    types = module.engine_code.signatures()
    return _wrap_extern_type(types.function_type(ty) if isinstance(ty, int) else types.close_extern(ty), types)


def export_type(module: CompiledModule, k: int) -> ExternType:
    """The type of export `k`."""
    from wasmforge.types import _wrap_extern_type

    info = module.info
    export = info.exports[k]
    types = module.engine_code.signatures()
    if export.kind == ExternKind.FUNC:
        return _wrap_extern_type(module.function_type(export.index), types)
    if export.kind == ExternKind.TABLE:
        return _wrap_extern_type(types.close_extern(info.all_tables()[export.index]), types)
    if export.kind == ExternKind.MEMORY:
        return _wrap_extern_type(info.all_memories()[export.index])
    if export.kind == ExternKind.GLOBAL:
        return _wrap_extern_type(types.close_extern(info.all_globals()[export.index]), types)
    raise WasmtimeError(f"export {export.name!r} has an unknown kind")
