"""The root of the exceptions that a bad program can cause. Each phase derives its own class from
`WasmtimeError` (Wasmtime's name, kept so that programs move over by changing an import), and callers that
do not care which phase failed catch that one class.
"""

from __future__ import annotations

__all__ = ["MalformedError", "ResultError", "UnsupportedFeatureError", "WasmtimeError", "WrongTypeError"]


class WasmtimeError(Exception):
    """Something about a module, a link or a use of the API is wrong. The message says what and where."""


class ResultError(WasmtimeError, TypeError):
    """A host function returned too many values, too few, or any where its type has none: a WasmtimeError in the
    wasmtime package, a TypeError to Python."""


class WrongTypeError(TypeError, AttributeError):
    """An argument is no object of the class that it must be: a TypeError, and an AttributeError for programs that know
    the wasmtime package, where a missing attribute of the argument is all that is noticed."""


class MalformedError(WasmtimeError):
    """The bytes are not a WebAssembly module (specification, chapter 5).

    `offset` is the byte offset into the input at which decoding failed.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"{message} (at offset {offset:#x})")
        self.reason = message
        self.offset = offset


class UnsupportedFeatureError(WasmtimeError):
    """The module uses a WebAssembly proposal that this version does not implement.

    `feature` is the proposal as the message names it, `offset` the byte offset of its first use.
    """

    def __init__(self, feature: str, offset: int) -> None:
        super().__init__(f"{feature} are not supported yet (at offset {offset:#x})")
        self.feature = feature
        self.offset = offset
