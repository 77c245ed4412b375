"""From text to loaded modules and instances, for tests of the runtime. Images are compiled once a session."""

from __future__ import annotations

from functools import cache
from typing import Any

from wasmforge import _lazy
from wasmforge.binary import decode, encode
from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.llvm import compile_module
from wasmforge.runtime import CompiledModule, EngineState, VMInstance, VMStore
from wasmforge.text import parse
from wasmforge.validation import validate


@cache
def image(text: str, **tunables: Any) -> bytes:
    """The image of a module in the text format, compiled for some tunables."""
    # By way of the binary, so that offsets in backtraces are those of a real module.
    module = decode(encode(parse(text)))
    return compile_module(module, validate(module), Tunables(**tunables), workers=1)


def lazy_module(engine: EngineState, text: str) -> CompiledModule:
    """A module in the text format of which nothing is compiled yet."""
    tunables = engine.tunables
    return _lazy.load(
        engine,
        _lazy.parse(engine, encode(parse(text))),
        lambda module, facts: compile_module(module, facts, tunables, workers=1),
    )


class Workshop:
    """An engine and a store, and short ways to use them. With `lazy`, functions are compiled at their first call."""

    def __init__(self, *, lazy: bool = False, **tunables: Any) -> None:
        self.tunables = tunables
        self.lazy = lazy
        self.engine = EngineState(Tunables(**tunables))
        self.store = VMStore(self.engine)

    def module(self, text: str, *, lazy: bool | None = None) -> CompiledModule:
        if self.lazy if lazy is None else lazy:
            return lazy_module(self.engine, text)
        return CompiledModule.from_bytes(self.engine, image(text, **self.tunables))

    def instance(self, text: str, *imports: Any) -> VMInstance:
        """An instance whose start function has run."""
        made = self.store.instantiate(self.module(text), imports)
        made.run_start()
        return made

    def functions(self, text: str, *imports: Any) -> Any:
        """An object whose attributes are the exported functions, callable."""
        made = self.instance(text, *imports)
        namespace = type("Exports", (), {})()
        for name, kind in ((e.name, e.kind) for e in made.module.info.exports):
            if kind == 0:
                setattr(namespace, name, made.export(name).make_callable(name))  # type: ignore[union-attr]
        namespace.instance = made
        return namespace
