"""The modules that the official specification suite gives as bytes: which are malformed, invalid or fine, and why."""

from __future__ import annotations

from tests.binary.suite_binaries import SuiteBinary, suite_binaries, suite_folder
from wasmforge.binary import decode, encode
from wasmforge.syntax.errors import MalformedError, UnsupportedFeatureError, WasmtimeError
from wasmforge.syntax.features import ALL_FEATURES
from wasmforge.validation import InvalidError, validate

CLASSES: dict[str, type[WasmtimeError]] = {"malformed": MalformedError, "invalid": InvalidError}

WAITING = {
    "binary-gc.wast": "garbage collection",
    "binary0.wast": "multi-memory",
    "binary_leb128_64.wast": "memory64",
    "elem.wast": "typed function references",
}
"""Files with modules that need a proposal; in these a module may be refused by the name of its feature."""


def _failure(b: SuiteBinary) -> str | None:
    """What is wrong with how a module was taken, or None."""
    try:
        module = decode(b.data)
        validate(module, ALL_FEATURES)
    except UnsupportedFeatureError as error:
        return None if b.file in WAITING else str(error)
    except WasmtimeError as error:
        if b.file in WAITING and "multi-memory" in str(error):
            return None
        if b.assertion not in CLASSES:
            return str(error)
        if not isinstance(error, CLASSES[b.assertion]):
            return f"{b.assertion} expected, {error!r} raised"
        return None if str(error).startswith(b.text) else f"{b.text!r} expected, {error} raised"
    if b.assertion in CLASSES:
        return f"accepted, but it is {b.assertion}: {b.text}"
    again = encode(module)
    return None if encode(decode(again)) == again else "the encoding is not canonical"


def test_binary_modules_of_the_suite() -> None:
    seen = 0
    failures = []
    for path in sorted(suite_folder().glob("*.wast")):
        for b in suite_binaries(path):
            seen += 1
            failure = _failure(b)
            if failure is not None:
                failures.append(f"{b.file}:{b.line}: {failure}")
    assert not failures, "\n".join(failures)
    assert seen > 800, "the scanner found fewer modules than the suite has"
