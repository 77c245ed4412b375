"""Evaluation of constant expressions (specification, section 3.3.10, with the extended-const operators): initial
values of globals, offsets of active segments, items of element segments. Instantiation calls it with validated code.
"""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = ["evaluate"]

_M32: Final = 0xFFFFFFFF
_M64: Final = 0xFFFFFFFFFFFFFFFF

# opcode: (operation, mask of the result); + - * modulo 2**32 or 2**64
_OPERATORS: Final[dict[int, tuple[str, int]]] = {
    0x6A: ("+", _M32),
    0x6B: ("-", _M32),
    0x6C: ("*", _M32),
    0x7C: ("+", _M64),
    0x7D: ("-", _M64),
    0x7E: ("*", _M64),
}


def _signed(code: bytes, pc: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = code[pc]
        pc += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value - (1 << shift) if byte & 0x40 else value), pc


def _unsigned(code: bytes, pc: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = code[pc]
        pc += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, pc


def evaluate(code: bytes, get_global: Callable[[int], int], ref_func: Callable[[int], int]) -> int:
    """The value of a constant expression as unsigned bits; references as words (0 is null).

    `get_global(x)` gives the bits of a global of the index space, `ref_func(x)` the address of a function's VMFuncRef.
    Raises WasmtimeError for code that is no constant expression; an undamaged image holds none.
    """
    stack: list[int] = []
    pc = 0
    try:
        while True:
            opcode = code[pc]
            pc += 1
            if opcode == 0x0B:
                (value,) = stack
                return value
            if opcode == 0x41:
                value, pc = _signed(code, pc)
                stack.append(value & _M32)
            elif opcode == 0x42:
                value, pc = _signed(code, pc)
                stack.append(value & _M64)
            elif opcode == 0x43 or opcode == 0x44:
                width = 4 if opcode == 0x43 else 8
                stack.append(int.from_bytes(code[pc : pc + width], "little"))
                pc += width
            elif opcode == 0xFD:
                number, pc = _unsigned(code, pc)
                if number != 0x0C:
                    raise KeyError(number)
                stack.append(int.from_bytes(code[pc : pc + 16], "little"))
                pc += 16
            elif opcode == 0x23:
                value, pc = _unsigned(code, pc)
                stack.append(get_global(value))
            elif opcode == 0xD0:
                _, pc = _signed(code, pc)
                stack.append(0)
            elif opcode == 0xD2:
                value, pc = _unsigned(code, pc)
                stack.append(ref_func(value))
            else:
                operator, mask = _OPERATORS[opcode]
                right = stack.pop()
                left = stack.pop()
                result = left + right if operator == "+" else left - right if operator == "-" else left * right
                stack.append(result & mask)
    except (IndexError, KeyError, ValueError) as error:
        raise WasmtimeError(f"damaged compiled module: {code.hex(' ')} is not a constant expression") from error
