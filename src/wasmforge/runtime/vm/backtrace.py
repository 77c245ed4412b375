"""`Backtrace`: the wasm frames of a trap or of a host function's exception. The gates deliver program counters; names
and offsets are looked up when somebody looks, because most traps are caught and thrown away.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from wasmforge.compiler.trap import TrapKind
    from wasmforge.runtime.compiled_module import CompiledModule, FrameInfo
    from wasmforge.runtime.module_registry import ModuleRegistry

__all__ = ["Backtrace"]


class Backtrace:
    """Frames of the store `store_id`, innermost first. It keeps the store's code alive, so that the program counters
    keep their meaning, but not its memories. `omitted` is the number of outer frames that were cut.

    `kind` is the code of the trap, None for any other exception. `fault` tells, after an access outside of a memory,
    the address in the memory and the memory's length, in bytes.
    """

    __slots__ = ("_frames", "_pcs", "_registry", "fault", "kind", "omitted", "store_id")

    def __init__(self, registry: ModuleRegistry | None, pcs: tuple[int, ...], omitted: int, store_id: int = 0) -> None:
        self._registry = registry
        self._pcs = pcs
        self.omitted = omitted
        self.store_id = store_id
        self.kind: TrapKind | None = None
        self.fault: tuple[int, int] | None = None
        self._frames: list[FrameInfo] | None = None

    @classmethod
    def of_record(cls, registry: ModuleRegistry | None, record: bytes) -> Backtrace:
        """What a trap carries that the gates have made. Without a registry, since the store was being destroyed, it has
        no frames."""
        from wasmforge.compiler.trap import TRAP_KINDS
        from wasmforge.runtime.native.trap_record import decode

        facts = decode(record)
        backtrace = cls(registry, facts.pcs, facts.omitted, facts.store_id)
        backtrace.kind = TRAP_KINDS[facts.kind]
        if facts.memory is not None:
            base, length = facts.memory
            backtrace.fault = facts.address - base, length
        return backtrace

    def fill(self, registry: ModuleRegistry, pcs: tuple[int, ...], omitted: int, store_id: int) -> None:
        """Gives frames to a backtrace that has none yet."""
        if self._registry is None:
            self._registry = registry
            self._pcs = pcs
            self.omitted = omitted
            self.store_id = store_id
            self._frames = None

    @property
    def is_empty(self) -> bool:
        return self._registry is None

    @property
    def frames(self) -> list[FrameInfo]:
        """The frames; trampolines and gates between them are left out."""
        if self._frames is None:
            from wasmforge.runtime.code import StoreCodePC

            registry = self._registry
            frames = []
            if registry is not None:
                for pc in self._pcs:
                    frame = registry.lookup_frame_info(StoreCodePC.from_raw(pc))
                    if frame is not None:
                        frames.append(frame)
            self._frames = frames
        return self._frames

    def frames_with_modules(self) -> Iterator[tuple[FrameInfo, CompiledModule]]:
        """The frames, each with the module that its function is of."""
        from wasmforge.runtime.code import StoreCodePC

        registry = self._registry
        if registry is None:
            return
        for raw in self._pcs:
            pc = StoreCodePC.from_raw(raw)
            frame, found = registry.lookup_frame_info(pc), registry.module_and_code_by_pc(pc)
            if frame is not None and found is not None:
                yield frame, found[0].module()

    def __str__(self) -> str:
        """Wasmtime's text: a line a frame, `0: 0x1f - module!function`."""
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        lines = ["wasm backtrace:"]
        for number, frame in enumerate(self.frames):
            offset = "<unknown>" if frame.module_offset is None else f"{frame.module_offset:#x}"
            name = frame.func_name or f"<wasm function {frame.func_index}>"
            lines.append(f"  {number:>3}: {offset:>8} - {frame.module_name or '<unknown>'}!{name}")
        if self.omitted:
            lines.append(f"  ... {self.omitted} more frames")
        return lines
