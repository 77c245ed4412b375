"""Which engine an image was compiled for: written by the link step, checked by whoever loads an image.

Encoding of the section `.wasmforge.engine`: a `marshal` value (version 2, see `info`) of a tuple: format
version, package version, triple, instruction set level, and the tunables as pairs of name and value.
"""

from __future__ import annotations

import marshal

from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.image import ENGINE_SECTION, Image
from wasmforge.compiler.target import LEVELS, TRIPLE, host_level
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["COMPILER_VERSION", "FORMAT_VERSION", "check_engine", "encode_engine"]

FORMAT_VERSION: Final = 3
"""Changes with the image format, the vmctx layout, the internal convention or the builtins."""

COMPILER_VERSION: Final = VERSION
"""The package's version: any change of it may change generated code."""


def encode_engine(tunables: Tunables, level: str) -> bytes:
    """The section. `level` is the instruction set that the code needs, one of `target.LEVELS`."""
    settings = tuple((k.encode(), v.encode() if isinstance(v, str) else v) for k, v in tunables.as_dict().items())
    return marshal.dumps((FORMAT_VERSION, COMPILER_VERSION.encode(), TRIPLE.encode(), level.encode(), settings), 2)


def check_engine(image: Image, tunables: Tunables) -> None:
    """Raises `WasmtimeError` that says what differs when this process cannot run an image as it is configured."""
    try:
        fields = marshal.loads(image.section(ENGINE_SECTION))
        format_version = fields[0]
        if format_version != FORMAT_VERSION:
            raise WasmtimeError(
                f"compiled module has image format {format_version}, this wasmforge reads {FORMAT_VERSION}; "
                "compile it again"
            )
        _, made_by, triple, level, settings = fields
        _check_machine(made_by.decode(), triple.decode(), level.decode())
        found = {k.decode(): v.decode() if isinstance(v, bytes) else v for k, v in settings}
    except (EOFError, TypeError, ValueError, IndexError, AttributeError) as e:
        raise WasmtimeError(f"damaged compiled module: its engine record cannot be read ({e})") from e
    for name, wanted in tunables.as_dict().items():
        if found.get(name) != wanted and name != "verify_ir":  # which changes no code
            if name == "features":
                raise _feature_mismatch(found.get(name), int(wanted))
            raise WasmtimeError(
                f"compiled module was made with {name} = {found.get(name)!r}, but this engine has {name} = {wanted!r}"
            )


def _feature_mismatch(found: int | str | None, wanted: int) -> WasmtimeError:
    from wasmforge.syntax.features import KNOBS

    made_with = found if isinstance(found, int) else 0
    knobs = [
        f"{knob.setting} = {bool(made_with >> f & 1)}, but this engine has {bool(wanted >> f & 1)}"
        for f, knob in KNOBS.items()
        if (made_with ^ wanted) >> f & 1
    ]
    return WasmtimeError(f"compiled module was made with {'; '.join(knobs) or 'other features'}")


def _check_machine(made_by: str, triple: str, level: str) -> None:
    if made_by != COMPILER_VERSION:
        raise WasmtimeError(
            f"compiled module was made by wasmforge {made_by}, this is {COMPILER_VERSION}; compile it again"
        )
    if triple != TRIPLE:
        raise WasmtimeError(f"compiled module is for {triple}, this computer is {TRIPLE}")
    levels = list(LEVELS)
    if level not in levels or levels.index(level) > levels.index(host_level()):
        raise WasmtimeError(f"compiled module needs a processor of level {level}, this one is {host_level()}")
