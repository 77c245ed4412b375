"""A bare machine for compiled modules: maps an image, lays out a vmctx and calls functions, without the runtime.

What a test sees is therefore only the compiler's doing. Entry and traps go through a few instructions of assembly
below; memory faults are not caught (tests of bounds use explicit checks).
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm

from wasmforge.compiler.environ import (
    BUILTIN_INDEX,
    BUILTINS,
    VALRAW_SIZE,
    StoreContext,
    Tunables,
    VMContextOffsets,
    VMFuncRef,
    VMMemory,
    VMMemoryDefinition,
    VMTableDefinition,
)
from wasmforge.compiler.image import ADDRESS_MAP_SECTION, INFO_SECTION, RODATA_WASM_SECTION, Image
from wasmforge.compiler.info import CompiledModuleInfo
from wasmforge.compiler.llvm import compile_module
from wasmforge.compiler.llvm.object_file import parse_object
from wasmforge.compiler.memory_images import constant_address
from wasmforge.compiler.tables import address_map
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.module import Expression, Module, SegmentMode
from wasmforge.syntax.types import PAGE_SIZE, ExternKind
from wasmforge.text import parse
from wasmforge.validation import validate

LIBC = ctypes.CDLL(None)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_NORESERVE = 0x4000

ENTRY = f"""
.globl enter
enter:
  push rbp
  mov rbp, rsp
  push rbx
  push r12
  push r13
  push r14
  push r15
  push r15
  mov rax, [rdi + {VMContextOffsets.STORE_CONTEXT}]
  mov [rax + {StoreContext.HOST_SP}], rsp
  mov rax, r9
  call rax
  mov rax, -1
leave:
  pop r15
  pop r15
  pop r14
  pop r13
  pop r12
  pop rbx
  pop rbp
  ret
.globl trap
trap:
  mov rcx, [r13 + {VMContextOffsets.STORE_CONTEXT}]
  mov rdx, [rsp]
  mov [rcx + {StoreContext.LAST_EXIT_FP}], rdx
  mov rsp, [rcx + {StoreContext.HOST_SP}]
  mov eax, edi
  jmp leave
"""


class TrapError(Exception):
    """A trap, with the position in the binary that the address map gives for it."""

    def __init__(self, kind: TrapKind, position: int | None) -> None:
        super().__init__(kind.name, position)
        self.kind = kind
        self.position = position


def assemble(source: str, *, syntax: str = "intel") -> tuple[bytes, dict[str, int]]:
    """Machine code for assembly, and the offsets of its global symbols."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    lines = [".text"]
    if syntax == "intel":
        lines.append(".intel_syntax noprefix")
    lines += source.strip().splitlines()
    lines.append(".att_syntax")
    text = "\n".join(f'module asm "{line.strip()}"' for line in lines)
    # Global symbols would stay relocations; make them functions so that the parser lists them.
    for line in source.splitlines():
        if line.strip().startswith(".globl"):
            name = line.split()[1]
            text += f'\nmodule asm ".hidden {name}"\nmodule asm ".type {name},@function"'
    machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(reloc="pic", codemodel="small")
    module = llvm.parse_assembly('target triple = "x86_64-unknown-linux-gnu"\n' + text)
    found = parse_object(machine.emit_object(module))
    return bytes(found.text), {name: offset for name, offset, _ in found.functions}


class Mapping:
    """Anonymous memory at a known address."""

    def __init__(self, size: int, protection: int = mmap.PROT_READ | mmap.PROT_WRITE, reserve: bool = False) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (_NORESERVE if reserve else 0)
        self.size = size
        self.address: int = LIBC.mmap(None, size, protection, flags, -1, 0)
        assert self.address != (1 << 64) - 1

    def write(self, offset: int, data: bytes) -> None:
        ctypes.memmove(self.address + offset, data, len(data))

    def read(self, offset: int, size: int) -> bytes:
        return ctypes.string_at(self.address + offset, size)

    def close(self) -> None:
        LIBC.munmap(self.address, self.size)


def executable(code: bytes) -> Mapping:
    mapping = Mapping(len(code), mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    mapping.write(0, code)
    return mapping


_entry: tuple[Mapping, dict[str, int]] | None = None


def entry_code() -> tuple[Mapping, dict[str, int]]:
    global _entry
    if _entry is None:
        code, symbols = assemble(ENTRY)
        mapping = executable(code)
        _entry = (mapping, {name: mapping.address + offset for name, offset in symbols.items()})
    return _entry


class Machine:
    """One instance of a module without imports (functions may be imported if never called)."""

    def __init__(
        self,
        source: str | Module,
        tunables: Tunables | None = None,
        workers: int = 1,
        compiler: Callable[..., bytes] = compile_module,
    ) -> None:
        module = parse(source) if isinstance(source, str) else source
        self.module = module
        self.image_bytes = compiler(module, validate(module), tunables or Tunables(), workers=workers)
        self.image = Image(self.image_bytes)
        self.info = CompiledModuleInfo.decode(self.image.section(INFO_SECTION))
        info = self.info
        start = self.image.text_offset
        self.code = executable(self.image_bytes[start : start + self.image.code_size])
        self.offsets = VMContextOffsets.of(module, len(info.func_refs))
        self.vmctx = Mapping(self.offsets.size)
        self.store = Mapping(StoreContext.SIZE)
        self.records = Mapping(1 << 20)
        self.used = 0
        _, self.symbols = entry_code()
        self.keep_alive: list[Any] = []
        self._fill()

    def allocate(self, size: int) -> int:
        address = self.records.address + self.used
        self.used += (size + 15) & ~15
        return address

    def poke(self, address: int, value: int, size: int = 8) -> None:
        ctypes.memmove(address, value.to_bytes(size, "little"), size)

    def peek(self, address: int, size: int = 8) -> int:
        return int.from_bytes(ctypes.string_at(address, size), "little")

    def _fill(self) -> None:
        vm = self.vmctx.address
        info = self.info
        self.poke(vm + VMContextOffsets.STORE_CONTEXT, self.store.address)
        builtins = self.allocate(8 * len(BUILTINS))
        self.poke(vm + VMContextOffsets.BUILTINS, builtins)
        self.poke(builtins + 8 * BUILTIN_INDEX["trap"], self.symbols["trap"])
        # A C function of up to six integers is a builtin as it is: vmctx travels in a callee-saved register.
        for name, function in (("memory_move", LIBC.memmove), ("memory_set", LIBC.memset)):
            self.poke(builtins + 8 * BUILTIN_INDEX[name], ctypes.cast(function, ctypes.c_void_p).value or 0)
        types = self.allocate(4 * len(info.types) + 4)
        self.poke(vm + VMContextOffsets.TYPE_IDS, types)
        first: dict[Any, int] = {}
        for x, ft in enumerate(info.types):
            self.poke(types + 4 * x, 1000 + first.setdefault(ft, x), 4)
        functions = info.all_functions()
        imported = info.num_imported(ExternKind.FUNC)
        for k, x in enumerate(info.func_refs):
            ref = vm + self.offsets.func_ref(k)
            if x >= imported:
                self.poke(ref + VMFuncRef.WASM_CALL, self.code.address + info.function_range(x - imported).start)
            self.poke(ref + VMFuncRef.VMCTX, vm)
            self.poke(ref + VMFuncRef.TYPE_INDEX, self.peek(types + 4 * functions[x], 4), 4)
        self._fill_memories()
        self._fill_tables()
        for x, g in enumerate(info.globals):
            value = constant_address(Expression(g.init))
            if value is not None:
                self.poke(vm + self.offsets.defined_global(x), value, 16)

    def _fill_memories(self) -> None:
        self.memories = []
        for x, memory in enumerate(self.info.memories):
            size = memory.limits.minimum * PAGE_SIZE
            mapping = Mapping(max(size, 4096))
            definition = self.allocate(VMMemoryDefinition.SIZE)
            self.poke(definition + VMMemoryDefinition.BASE, mapping.address)
            self.poke(definition + VMMemoryDefinition.CURRENT_LENGTH, size)
            record = self.vmctx.address + self.offsets.memory(x)
            self.poke(record + VMMemory.BASE, mapping.address)
            self.poke(record + VMMemory.DEFINITION, definition)
            image = self.info.memory_images.get(x)
            if image is not None:
                start = self.image.section_range(".wasmforge.memory")[0] + image.image_offset
                mapping.write(image.memory_offset, self.image_bytes[start : start + image.length])
            self.memories.append(mapping)
        constants = bytes(self.image.section(RODATA_WASM_SECTION))
        for x, d in self.info.data.items():
            if d.mode == SegmentMode.PASSIVE:
                address = self.allocate(d.length)
                ctypes.memmove(address, constants[d.start : d.start + d.length], d.length)
                segment = self.vmctx.address + self.offsets.data_segment(x)
                self.poke(segment, address)
                self.poke(segment + 8, d.length)

    def _fill_tables(self) -> None:
        definitions = []
        for x, table in enumerate(self.info.tables):
            count = table.limits.minimum
            definition = self.allocate(VMTableDefinition.SIZE)
            self.poke(definition + VMTableDefinition.BASE, self.allocate(8 * count))
            self.poke(definition + VMTableDefinition.CURRENT_ELEMENTS, count)
            self.poke(self.vmctx.address + self.offsets.table(x), definition)
            definitions.append(definition)
        for e in self.info.elements:
            if e.mode == SegmentMode.ACTIVE and not e.uses_expressions and e.table_offset is not None:
                start = constant_address(Expression(e.table_offset)) or 0
                base = self.peek(definitions[e.table] + VMTableDefinition.BASE)
                for k, item in enumerate(e.items):
                    assert isinstance(item, int)
                    self.poke(base + 8 * (start + k), self.func_ref(item))

    def func_ref(self, x: int) -> int:
        return self.vmctx.address + self.offsets.func_ref(self.info.func_refs.index(x))

    def call(self, name: str, *arguments: int) -> list[int]:
        """Calls an export with bit patterns; returns those of its results."""
        index = next(e.index for e in self.info.exports if e.name == name and e.kind == ExternKind.FUNC)
        return self.call_index(index, arguments)

    def call_index(self, index: int, arguments: Sequence[int]) -> list[int]:
        type_index = self.info.all_functions()[index]
        ft = self.info.types[type_index]
        slots = max(len(ft.params), len(ft.results), 1)
        values = Mapping(VALRAW_SIZE * slots)
        for k, value in enumerate(arguments):
            values.write(VALRAW_SIZE * k, (value & (1 << 128) - 1).to_bytes(16, "little"))
        trampoline = self.code.address + self.info.array_to_wasm[type_index].start
        target = self.code.address + self.info.function_range(index - self.info.num_imported(ExternKind.FUNC)).start
        enter = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 6)(self.symbols["enter"])
        status = enter(self.vmctx.address, self.vmctx.address, values.address, slots, target, trampoline)
        if status != -1:
            pc = self.peek(self.store.address + StoreContext.LAST_EXIT_FP) - 1 - self.code.address
            position = address_map.lookup(self.image.section(ADDRESS_MAP_SECTION), pc)
            raise TrapError(TrapKind(status), position)
        bits = [32 if t in (0x7F, 0x7D, 0x6F) else 128 if t == 0x7B else 64 for t in ft.results]
        slot = [int.from_bytes(values.read(VALRAW_SIZE * k, 16), "little") for k in range(len(bits))]
        out = [value & (1 << b) - 1 for value, b in zip(slot, bits, strict=True)]
        values.close()
        return out
