"""Python objects as the standard streams of a guest: files, text files, bytes, callables. `WasiConfig` and
`wasmforge.run` make these from what an embedder gives.

The objects belong to the embedder: they are never closed here, and what they raise leaves the guest through the call
that entered it, except for OSError, which the guest gets as the errno, as it would from a file of the host.
"""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.wasi.descriptors import CustomOutput, Descriptor, _first_bytes, _Input, _Output
from wasmforge.wasi.errno import AGAIN, BADF, WasiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

__all__ = ["BytesInput", "LimitedOutput", "OutputBudget", "input_of", "output_of"]

MAX_CHUNK: Final = 1 << 20
"""Bytes that go through a Python object at once. A guest may ask for more than the host could hold; it gets less."""


def input_of(source: Any, stream: str = "stdin") -> Descriptor:
    """The standard input that reads `source`: bytes or str (as UTF-8), a binary or text file object, or a callable
    `f(size) -> bytes` (at most `size`, b"" at the end). Raises TypeError for anything else."""
    if isinstance(source, str):
        return BytesInput(source.encode())
    if isinstance(source, (bytes, bytearray, memoryview)):
        return BytesInput(bytes(source))
    if hasattr(source, "read"):
        return _TextInput(source) if _is_text(source) else _FileInput(source)
    if callable(source):
        return _CallableInput(source)
    raise TypeError(f"{stream} must be bytes, str, a file object or a callable, got {type(source).__name__}")


def output_of(target: Any, stream: str) -> Descriptor:
    """The standard output that writes to `target`: a binary or text file object, a bytearray, or a callable
    `f(data)` that returns how many bytes it took, or None for all. Raises TypeError for anything else."""
    if isinstance(target, bytearray):
        return CustomOutput(target.extend)
    if hasattr(target, "write"):
        return _TextOutput(target) if _is_text(target) else _FileOutput(target)
    if callable(target):
        return CustomOutput(target)
    raise TypeError(f"{stream} must be a file object, a bytearray or a callable, got {type(target).__name__}")


def _is_text(file: Any) -> bool:
    import io

    if isinstance(file, io.TextIOBase):
        return True
    if isinstance(file, io.IOBase):
        return False
    return hasattr(file, "encoding") or "b" not in str(getattr(file, "mode", "b"))


# --- Input -----------------------------------------------------------------------------------------------------


class _PythonInput(_Input):
    """Input that comes in pieces; what a guest has no room for waits for its next read."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = memoryview(b"")

    def _next(self, size: int) -> bytes:
        """At most `size` bytes if the source can count them; b"" at the end."""
        raise NotImplementedError

    def read(self, buffers: list[memoryview]) -> int:
        wanted = sum(map(len, buffers))
        if not wanted:
            return 0
        if not self._rest:
            self._rest = memoryview(self._next(min(wanted, MAX_CHUNK)))
        total = 0
        for buffer in buffers:
            part = self._rest[: len(buffer)]
            buffer[: len(part)] = part
            self._rest = self._rest[len(part) :]
            total += len(part)
            if not self._rest:
                break
        return total

    def poll_target(self, write: bool) -> int | None:
        if write:
            raise WasiError(BADF)
        return None


class BytesInput(_PythonInput):
    """Bytes, then the end."""

    __slots__ = ()

    def __init__(self, data: bytes) -> None:
        self._rest = memoryview(data)

    def _next(self, size: int) -> bytes:
        return b""


def _checked(data: Any, source: str) -> bytes:
    if data is None:
        raise WasiError(AGAIN)  # a non-blocking file has nothing now
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{source} returned {type(data).__name__} instead of bytes")
    return bytes(data)


class _CallableInput(_PythonInput):
    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[int], bytes]) -> None:
        super().__init__()
        self._callback = callback

    def _next(self, size: int) -> bytes:
        return _checked(self._callback(size), "the callable for stdin")


class _FileInput(_PythonInput):
    """A binary file object. `read1` returns what is there; `read` would wait for as much as was asked for."""

    __slots__ = ("_read",)

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._read = getattr(file, "read1", None) or file.read

    def _next(self, size: int) -> bytes:
        return _checked(self._read(size), "read() of stdin")


class _TextInput(_PythonInput):
    """A text file object, as UTF-8, a line at a time, so that an interactive program gets its answers."""

    __slots__ = ("_file",)

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file

    def _next(self, size: int) -> bytes:
        text = self._file.readline(size)
        if not isinstance(text, str):
            raise TypeError(f"readline() of stdin returned {type(text).__name__} instead of str")
        return text.encode("utf-8", "surrogateescape")


# --- Output ----------------------------------------------------------------------------------------------------


class _FileOutput(_Output):
    """A binary file object."""

    __slots__ = ("_file",)

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, buffers: list[memoryview]) -> int:
        data = b"".join(_first_bytes(buffers, MAX_CHUNK))
        written = self._file.write(data)
        if written is None:
            # A raw non-blocking file says so when it took nothing; other objects just return nothing.
            import io

            if isinstance(self._file, io.RawIOBase):
                raise WasiError(AGAIN)
            return len(data)
        if not 0 <= written <= len(data):
            raise ValueError(f"write() of an output returned {written} for {len(data)} bytes")
        return int(written)

    def flush(self, data_only: bool) -> None:
        self._file.flush()

    def poll_target(self, write: bool) -> int | None:
        if not write:
            raise WasiError(BADF)
        return None


class _TextOutput(_Output):
    """A text file object. Bytes are decoded as UTF-8 (what is none becomes U+FFFD); a character that a write cuts
    waits for its other half."""

    __slots__ = ("_decode", "_file")

    def __init__(self, file: Any) -> None:
        import codecs

        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def write(self, buffers: list[memoryview]) -> int:
        data = b"".join(_first_bytes(buffers, MAX_CHUNK))
        text = self._decode(data)
        if text:
            self._file.write(text)
        return len(data)

    def close(self) -> None:
        rest = self._decode(b"", True)  # the first half of a character, of which nobody writes the second
        if rest:
            self._file.write(rest)

    def poll_target(self, write: bool) -> int | None:
        if not write:
            raise WasiError(BADF)
        return None


class OutputBudget:
    """How many bytes of output are left for the streams that share it, and what happens when none are."""

    __slots__ = ("exceeded", "left")

    def __init__(self, limit: int, exceeded: Callable[[], BaseException]) -> None:
        if limit < 0:
            raise WasmtimeError("a limit of output cannot be negative")
        self.left = limit
        self.exceeded = exceeded


class LimitedOutput(_Output):
    """An output with a budget. What fits is written; then the exception of the budget ends the guest."""

    __slots__ = ("_budget", "_inner", "file_type")

    def __init__(self, inner: Descriptor, budget: OutputBudget) -> None:
        self._inner = inner
        self._budget = budget
        self.file_type = inner.file_type

    def write(self, buffers: list[memoryview]) -> int:
        budget = self._budget
        total = sum(map(len, buffers))
        if total <= budget.left:
            written = self._inner.write(buffers)
            budget.left -= written
            return written
        left = budget.left
        for buffer in buffers:
            part = buffer[:left]
            while part:
                taken = self._inner.write([part])
                part = part[taken:]
                left -= taken
            if not left:
                break
        budget.left = 0
        raise budget.exceeded()

    def flush(self, data_only: bool) -> None:
        self._inner.flush(data_only)

    def poll_target(self, write: bool) -> int | None:
        return self._inner.poll_target(write)

    def close(self) -> None:
        self._inner.close()
