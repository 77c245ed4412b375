"""The proposals that an engine can switch: their names, their knobs and their defaults (table B.1 of the reference).

`Config` turns knobs into bits of `Tunables.features`; the validator refuses what needs a bit that is not set, with
`switched_off`; the instruction table says which proposal an instruction came with. A module on the start-up path, so it
imports nothing but `record`.
"""

from __future__ import annotations

from wasmforge.syntax.record import IntEnum, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["ALL_FEATURES", "DEFAULT_FEATURES", "KNOBS", "Feature", "Knob", "switched_off"]


class Feature(IntEnum):
    """A proposal; the number is its bit in a set of features. What has no knob is always there."""

    MVP = 0
    SIGN_EXTENSION = 1
    SATURATING_FLOAT_TO_INT = 2
    MULTI_VALUE = 3
    BULK_MEMORY = 4
    REFERENCE_TYPES = 5
    SIMD = 6
    RELAXED_SIMD = 7
    TAIL_CALL = 8
    MULTI_MEMORY = 9
    MEMORY64 = 10
    THREADS = 11
    CUSTOM_PAGE_SIZES = 12
    FUNCTION_REFERENCES = 13
    WIDE_ARITHMETIC = 14
    EXTENDED_CONST = 15


class Knob(NamedTuple):
    """How a proposal is switched: its name in messages (a plural), the property of `Config`, the default."""

    name: str
    setting: str
    default: bool


KNOBS: Final[dict[int, Knob]] = {
    Feature.MULTI_VALUE: Knob("functions with several results (multi-value)", "wasm_multi_value", True),
    Feature.BULK_MEMORY: Knob("bulk memory operations", "wasm_bulk_memory", True),
    Feature.REFERENCE_TYPES: Knob("reference types", "wasm_reference_types", True),
    Feature.SIMD: Knob("vector instructions (SIMD)", "wasm_simd", True),
    Feature.RELAXED_SIMD: Knob("relaxed vector instructions (relaxed SIMD)", "wasm_relaxed_simd", True),
    Feature.TAIL_CALL: Knob("tail calls", "wasm_tail_call", True),
    Feature.MULTI_MEMORY: Knob("multiple memories (multi-memory)", "wasm_multi_memory", True),
    Feature.MEMORY64: Knob("64-bit memories and tables (memory64)", "wasm_memory64", True),
    Feature.THREADS: Knob("shared memories and atomic instructions (threads)", "wasm_threads", True),
    Feature.CUSTOM_PAGE_SIZES: Knob("custom page sizes", "wasm_custom_page_sizes", False),
    Feature.FUNCTION_REFERENCES: Knob("typed function references", "wasm_function_references", False),
    Feature.WIDE_ARITHMETIC: Knob("wide-arithmetic instructions", "wasm_wide_arithmetic", False),
    Feature.EXTENDED_CONST: Knob("operators in constant expressions (extended-const)", "wasm_extended_const", True),
}

DEFAULT_FEATURES: Final = sum(1 << feature for feature, knob in KNOBS.items() if knob.default) | 0b111
"""What an engine allows unless its configuration says otherwise."""


ALL_FEATURES: Final = (1 << len(Feature)) - 1


def switched_off(feature: int) -> str:
    """The reason why a module that needs a proposal is refused: what it is, and how to switch it on."""
    knob = KNOBS[feature]
    return f"{knob.name} are switched off: set Config.{knob.setting} = True to allow them"
