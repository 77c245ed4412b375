"""Which modules `_start` imports together. Read only by a process that finds no bundle.

Each group names all that it loads, in the order in which the modules need each other, except for what belongs to the
groups that its user has imported before (`wasmforge.__getattr__`, `Engine._open_cache`). What is missing here is found
as any module; tests/api/test_start.py says so, and says what the lists have to be.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["GROUPS"]


def _group(names: str) -> tuple[str, ...]:
    return tuple(f"wasmforge.{name}" for name in names.split())


GROUPS: Final = {
    # An engine, a store, and an instance of an image.
    "engine": _group(
        """
        _managed compiler syntax syntax.record syntax.features syntax.types compiler.environ runtime runtime.lock
        runtime.ffi runtime.libc runtime.lifetime syntax.canonical syntax.errors runtime.type_registry
        runtime.engine_state engine compiler.image runtime.code_registry runtime.code runtime.module_registry
        runtime.vm runtime.mapping runtime.vm.records runtime.vm.func runtime.vm.traps syntax.externs
        runtime.vm.instance runtime.vm.limits runtime.vm.store_context
        runtime.store store compiler.target version compiler.compatibility compiler.info runtime.code_memory
        runtime.compiled_module module extern instance func_ runtime.native.image runtime.native.loader
        runtime.native.objects runtime.native.signals runtime.native.threads runtime.native.gates
        runtime.native.stacks runtime.native runtime.vm.libcalls runtime.vm.hooks
        """
    ),
    # What a module needs that goes on from where another process has stopped compiling it.
    "kept": _group(
        """
        compiler.fingerprint runtime.cache.trust runtime.cache runtime.cache.settings runtime.grown_image
        runtime.code_region runtime.lazy_code runtime.age runtime.tier_up runtime.lazy_module _saved
        compiler.availability runtime.cache.known runtime.cache.growth runtime.cache.grown runtime.vm.cow
        """
    ),
    # Instances of more than functions, linked by name.
    "linker": _group(
        """
        compiler.memory_plan runtime.vm.memory syntax.subtyping runtime.link types linker memory runtime.vm.table
        runtime.vm.globals runtime.vm.const_expr
        """
    ),
    # `wasmforge.load`.
    "loading": _group(
        """
        values globals_ table loading
        """
    ),
    # The functions of WASI and what they work on.
    "wasi": _group(
        """
        wasi wasi.abi wasi.waiting wasi.errno wasi.native wasi.descriptors wasi.fd_functions wasi.path_functions
        wasi.poll_function wasi.process_functions wasi.preview1 wasi.guest_memory wasi.binding wasi.preview0
        wasi.clocks wasi.context
        """
    ),
    # `WasiConfig`, which the command line does without.
    "config": _group(
        """
        wasi.files wasi.beneath wasi.host_files wasi.streams wasi.config
        """
    ),
}
