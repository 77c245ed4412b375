"""Which proposal an encoding belongs to that this version does not implement.

The decoder and the validator come here when they meet an opcode, a type or a flag that is not in their tables, to
tell a module of a later WebAssembly from garbage: the first is an `UnsupportedFeatureError` that names the
proposal, the second a `MalformedError`.
"""

from __future__ import annotations

from wasmforge.syntax.errors import MalformedError, UnsupportedFeatureError, WasmtimeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["opcode_error", "type_error"]

SIMD: Final = "vector instructions (SIMD)"
EXCEPTIONS: Final = "exception-handling instructions"
LEGACY_EXCEPTIONS: Final = "legacy exception-handling instructions"
GC: Final = "garbage-collection instructions (GC)"
GC_TYPES: Final = "garbage-collected types (GC)"
THREADS: Final = "atomic instructions (threads)"
MEMORY64: Final = "64-bit memories and tables (memory64)"
MULTI_MEMORY: Final = "multiple memories (multi-memory)"
CUSTOM_PAGE_SIZES: Final = "custom page sizes"
STACK_SWITCHING: Final = "stack-switching instructions"
TAGS: Final = "exception tags (exception-handling)"
CUSTOM_DESCRIPTORS: Final = "custom descriptors and exact types"
COMPONENTS: Final = "components (component model)"

_OPCODES: Final[dict[int, str]] = {
    **dict.fromkeys((0x06, 0x07, 0x09, 0x18, 0x19), LEGACY_EXCEPTIONS),
    **dict.fromkeys((0x08, 0x0A, 0x1F), EXCEPTIONS),
    **dict.fromkeys((0xE0, 0xE1, 0xE2, 0xE3, 0xE4, 0xE5, 0xE6), STACK_SWITCHING),
    0xD3: GC,
    0xFB: GC,
    0xFE: THREADS,
}

_TYPES: Final[dict[int, str]] = {
    **dict.fromkeys((0x78, 0x77), GC_TYPES),  # packed types i8 and i16
    **dict.fromkeys((0x74, 0x69, 0x68, 0x75), EXCEPTIONS.replace("instructions", "types")),  # noexn, exn, noext
    **dict.fromkeys((0x73, 0x72, 0x71, 0x6E, 0x6D, 0x6C, 0x6B, 0x6A), GC_TYPES),
    **dict.fromkeys((0x5F, 0x5E, 0x50, 0x4F), GC_TYPES),  # struct, array, sub, sub final
    **dict.fromkeys((0x4D, 0x4C), CUSTOM_DESCRIPTORS),  # describes, descriptor
    0x5D: STACK_SWITCHING.replace("instructions", "types"),
}


def opcode_error(opcode: int, offset: int) -> WasmtimeError:
    """The error for an opcode that is not in the instruction table (prefixed ones as in `InstructionRow`)."""
    first = opcode if opcode < 0x100 else opcode >> 12
    feature = _OPCODES.get(opcode) or _OPCODES.get(first)
    if feature is not None:
        return UnsupportedFeatureError(feature, offset)
    if opcode < 0x100:
        return MalformedError(f"illegal opcode {opcode:02x}", offset)
    return MalformedError(f"illegal opcode {first:02x} {opcode & 0xFFF:02x}", offset)


def type_error(byte: int, message: str, offset: int) -> WasmtimeError:
    """The error for a byte that stands where a type should and is not one that this version knows; `message` is
    the one to use when no proposal knows it either."""
    feature = _TYPES.get(byte)
    if feature is not None:
        return UnsupportedFeatureError(feature, offset)
    return MalformedError(message, offset)
