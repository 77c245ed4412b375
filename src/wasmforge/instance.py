"""`Instance`: a module with memories, tables and globals of its own in a store, and what it exports."""

from __future__ import annotations

from wasmforge.extern import entity_of, wrap_extern
from wasmforge.module import Module
from wasmforge.store import check_store, context
from wasmforge.syntax.errors import WrongTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from wasmforge.extern import Extern
    from wasmforge.runtime import VMInstance
    from wasmforge.store import Storelike
else:
    from _collections_abc import Mapping  # without the rest of `collections`, which costs 1 ms

__all__ = ["Instance", "InstanceExports"]


class Instance:
    """An instance.

    Parameters:
        store: where it lives.
        module: what it is an instance of.
        imports: a `Func`, `Table`, `Memory` or `Global` for each import, in the order of `module.imports`.

    Raises:
        WasmtimeError: the imports do not fit; the message names the first.
        Trap: the start function trapped, or an active segment does not fit its memory or table.
    """

    __slots__ = ("__weakref__", "_exports", "_instance")

    def __init__(self, store: Storelike, module: Module, imports: Sequence[Extern]) -> None:
        vm = context(store)
        if not isinstance(module, Module):
            raise WrongTypeError(f"expected a Module, got {type(module).__name__}")
        instance = vm.instantiate(module._open(), [entity_of(item) for item in imports] if imports else ())
        instance.run_start()
        self._instance = instance
        self._exports: InstanceExports | None = None

    @classmethod
    async def instantiate_async(cls, store: Storelike, module: Module, imports: Sequence[Extern]) -> Instance:
        """Make an instance whose start function may call asynchronous host functions; parameters and exceptions as of
        the class."""
        vm = context(store)
        if not isinstance(module, Module):
            raise WrongTypeError(f"expected a Module, got {type(module).__name__}")
        instance = vm.instantiate(module._open(), [entity_of(item) for item in imports])
        await instance.run_start_async()
        return cls._wrap(instance)

    @classmethod
    def _wrap(cls, instance: VMInstance) -> Instance:
        self = cls.__new__(cls)
        self._instance = instance
        self._exports = None
        return self

    def exports(self, store: Storelike) -> InstanceExports:
        """What the instance exports, by name."""
        check_store(store, self._instance.store.id)
        if self._exports is None:
            self._exports = InstanceExports(store, self)
        return self._exports

    def __repr__(self) -> str:
        info = self._instance.module.info
        name = f" of {info.name!r}" if info.name else ""
        return f"<Instance{name}: {len(info.exports)} exports>"


class InstanceExports(Mapping[str, "Any"]):
    """The exports of an instance: a mapping from names, and a sequence in the module's order. To a type checker they
    are `Any`, since only the module knows which is a `Func`, a `Memory`, a `Table` or a `Global`."""

    def __init__(self, store: Storelike, instance: Instance) -> None:
        check_store(store, instance._instance.store.id)
        self._by_name = {name: wrap_extern(entity) for name, entity in instance._instance.exports()}

    @property
    def by_index(self) -> Sequence[Extern]:
        """The exports in the module's order."""
        return tuple(self._by_name.values())

    def __getitem__(self, idx: str) -> Any:
        return self._by_name[idx]

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __repr__(self) -> str:
        return f"<InstanceExports {', '.join(self._by_name)}>"
