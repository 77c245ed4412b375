"""The exceptions of validation: `InvalidError`, which users see, and the one that the checks raise inside."""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError

__all__ = ["Invalid", "InvalidError"]


class InvalidError(WasmtimeError):
    """The module is well-formed but breaks a rule of validation (specification, chapter 3).

    `reason` is the rule in the words of the specification's test suite and the details; `function` and
    `function_name` say in which function (None outside of bodies, or without a name), `offset` at which byte of
    the module (None when the item has no position of its own).
    """

    def __init__(
        self, reason: str, offset: int | None = None, function: int | None = None, function_name: str | None = None
    ) -> None:
        message = reason
        if function is not None:
            message += f" in function {function}"
            if function_name is not None:
                message += f' "{function_name}"'
        if offset is not None:
            message += f" at offset {offset:#x}"
        super().__init__(message)
        self.reason = reason
        self.offset = offset
        self.function = function
        self.function_name = function_name


class Invalid(Exception):
    """Raised by the checks of one body or expression, which know the position in the code but not the function;
    `validate` turns it into an `InvalidError`."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at
