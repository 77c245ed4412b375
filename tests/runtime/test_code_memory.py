"""Images in memory (tables A2-01 to A2-04, A3-01 to A3-03): W^X, damage, private copies, and the two registries of
program counters."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from tests.runtime.compiling import Workshop, image
from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.image import TEXT_SECTION
from wasmforge.runtime import CompiledModule, EngineState, VMStore, compiled_module
from wasmforge.runtime.code import EngineCodePC, ModuleWithCode, StoreCodePC
from wasmforge.runtime.code_memory import CodeMemory, CustomCodeMemory
from wasmforge.runtime.code_registry import lookup_code, register_code, unregister_code
from wasmforge.runtime.libc import PROT_EXEC, PROT_READ, protect
from wasmforge.runtime.mapping import Mmap
from wasmforge.runtime.module_registry import ModuleRegistry
from wasmforge.syntax.errors import WasmtimeError

TEXT = """(module $m (func $one (export "one") (result i32) (i32.const 1)) (func $two (export "two") (result i32)
  (i32.add (call $one) (call $one))) (func $inner (param i64)) (data "passive data"))"""


def protection(address: int) -> str:
    """What /proc says about the page at an address: for instance `r-xp`."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, flags = line.split()[:2]
            low, high = (int(x, 16) for x in span.split("-"))
            if low <= address < high:
                return flags
    return ""


def file_memory(tmp_path: Path, data: bytes) -> CodeMemory:
    file = tmp_path / "image"
    file.write_bytes(data)
    return CodeMemory.from_file(file)


@pytest.mark.parametrize("source", ["bytes", "file"])
def test_pages_are_never_writable_and_executable(tmp_path: Path, source: str) -> None:
    data = image(TEXT)
    code = CodeMemory.from_bytes(data) if source == "bytes" else file_memory(tmp_path, data)
    assert protection(code.text_address) == "r--p"
    code.publish()
    assert protection(code.text_address) == "r-xp"
    header = code.text_address - code.section_offset(TEXT_SECTION)
    assert protection(header) == "r--p"  # only the text is executable
    assert bytes(code.image()) == data
    with pytest.raises(ValueError, match="already"):
        code.publish()
    with pytest.raises(ValueError, match="unpublish"):
        code.text_mut()
    for view in (code.image(), code.text(), code.section(TEXT_SECTION)):
        assert view.readonly
    if source == "file":
        with pytest.raises(ValueError, match="deep_clone"):
            code.unpublish()
        return
    code.unpublish()
    assert protection(code.text_address) == "rw-p"
    code.text_mut()[0:1] = code.text_mut()[0:1]
    code.publish()
    assert protection(code.text_address) == "r-xp"


def test_deep_clone_is_private() -> None:
    code = CodeMemory.from_bytes(image(TEXT))
    code.publish()
    clone = code.deep_clone()
    assert not clone.published
    assert clone.text_address != code.text_address
    assert bytes(clone.text()) == bytes(code.text())
    clone.publish()
    clone.unpublish()
    clone.text_mut()[0] = 0xCC
    assert code.text()[0] != 0xCC


def test_files_that_are_no_images(tmp_path: Path) -> None:
    for data in (b"", b"\x7fELF", b"\0asm\1\0\0\0", image(TEXT)[:-1], image(TEXT)[:5000]):
        with pytest.raises(WasmtimeError):
            file_memory(tmp_path, data)
        with pytest.raises(WasmtimeError):
            CodeMemory.from_bytes(data)
    with pytest.raises(OSError):
        CodeMemory.from_file(tmp_path / "none")


def test_a_flipped_bit_anywhere_is_refused() -> None:
    """Attack: a damaged cache file. Every byte is under the checksum."""
    data = bytearray(image(TEXT))
    engine = EngineState(Tunables())
    for at in range(0, len(data), 97):
        data[at] ^= 4
        with pytest.raises(WasmtimeError):
            CompiledModule.from_bytes(engine, data)
        data[at] ^= 4
    CompiledModule.from_bytes(engine, data)


def test_image_for_other_tunables() -> None:
    with pytest.raises(WasmtimeError, match="signals_based_traps"):
        CompiledModule.from_bytes(EngineState(Tunables(signals_based_traps=False)), image(TEXT))


def test_a_refused_image_leaves_nothing_registered() -> None:
    engine = EngineState(Tunables(signals_based_traps=False))
    with pytest.raises(WasmtimeError):
        CompiledModule.from_bytes(engine, image(TEXT))
    assert len(engine.types) == 0


def test_file_on_a_file_system_without_execution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mprotect of a file on a noexec mount fails with EACCES; the image is copied then."""
    code = file_memory(tmp_path, image(TEXT))
    mapped = code.text_address
    real = Mmap.protect

    def refuse(self: Mmap, start: int, length: int, wanted: int) -> None:
        if wanted & PROT_EXEC and self.address <= mapped < self.end:
            raise PermissionError(13, "Permission denied")
        real(self, start, length, wanted)

    monkeypatch.setattr(Mmap, "protect", refuse)
    code.publish()
    assert code.text_address != mapped
    assert protection(code.text_address) == "r-xp"
    assert code.file_source() is None


def test_custom_code_memory() -> None:
    calls: list[tuple[str, int, int]] = []

    class Custom(CustomCodeMemory):
        def required_alignment(self) -> int:
            return 4096

        def publish_executable(self, address: int, length: int) -> None:
            calls.append(("publish", address, length))
            protect(address, length, PROT_READ | PROT_EXEC)

        def unpublish_executable(self, address: int, length: int) -> None:
            raise AssertionError("nobody patches this code")

    engine = EngineState(Tunables(), custom_code_memory=Custom())
    module = CompiledModule.from_bytes(engine, image(TEXT))
    assert [c[0] for c in calls] == ["publish"]
    assert calls[0][1] == module.engine_code.text_range().start.raw()
    assert calls[0][2] % 4096 == 0
    assert VMStore(engine).instantiate(module, []).export("two").make_callable()() == 2  # type: ignore[union-attr]

    class Odd(Custom):
        def required_alignment(self) -> int:
            return 3 * 4096

    with pytest.raises(WasmtimeError, match="required_alignment"):
        CompiledModule.from_bytes(EngineState(Tunables(), custom_code_memory=Odd()), image(TEXT))


def test_global_registry_follows_the_engine_code() -> None:
    workshop = Workshop()
    module = workshop.module(TEXT)
    pcs = module.engine_code.text_range()
    start, end = pcs.start.raw(), pcs.end.raw()
    code = module.engine_code.module_memory_image_source()
    assert lookup_code(start) == (code, 0)
    assert lookup_code(end - 1) == (code, len(pcs) - 1)
    assert lookup_code(end) is None
    assert lookup_code(start - 1) is None
    with pytest.raises(ValueError, match="overlaps"):
        register_code(end - 1, 10, code)
    with pytest.raises(ValueError, match="overlaps"):
        register_code(start - 5, 6, code)
    store = workshop.store
    store.instantiate(module, [])
    del module
    assert lookup_code(start) is not None  # the store still runs it
    del store, workshop
    assert lookup_code(start) is None
    unregister_code(start, code)  # as for text of length 0: nothing happens


def test_registry_of_a_store() -> None:
    workshop = Workshop()
    module, other = workshop.module(TEXT), workshop.module('(module (func $f (export "f") unreachable))')
    registry = ModuleRegistry(workshop.engine.tunables)
    assert ModuleWithCode.in_store(registry, module) is None
    pair = registry.register_module(module)
    assert registry.register_module(module).store_code() is pair.store_code()
    registry.register_module(other)
    assert pair.store_code().code_memory() is module.engine_code.module_memory_image_source()
    assert pair.store_code().code_memory_mut() is None
    assert [k for k, _ in pair.finished_functions()] == [0, 1, 2]
    for k, code in pair.finished_functions():
        assert bytes(code) == bytes(pair.finished_function(k))
        pc = pair.function_pc(k)
        found = registry.module_and_code_by_pc(pc)
        assert found is not None
        assert found[0].module() is module
        assert found[1] == pair.text_offset(pc) == module.info.function_range(k).start
        frame = registry.lookup_frame_info(pc + 1)
        assert frame is not None
        assert (frame.func_index, frame.func_name, frame.module_name) == (k, ("one", "two", "inner")[k], "m")
    end = pair.store_code().text_range().end
    assert pair.text_offset(end) is None
    assert registry.module_and_code_by_pc(StoreCodePC(0)) is None
    trampoline = pair.array_to_wasm_pc(module.function_types[0])
    assert trampoline is not None
    assert registry.lookup_frame_info(trampoline) is None
    assert pair.array_to_wasm_trampoline(module.function_types[2]) is None  # no function of that type escapes
    signature = module.engine_code.signatures().shared_type(module.function_types[2])
    address = registry.wasm_to_array_trampoline(signature)
    assert address is not None
    assert EngineCodePC(address) in module.engine_code.text_range()
    assert registry.wasm_to_array_trampoline(9999) is None
    assert {m.module() for m in registry.loaded_modules()} == {module, other}


def test_guest_debugging_gives_each_store_its_own_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables A1-34 to A1-41: private store code runs, is registered for faults, resolves in backtraces, and goes
    away."""
    text = TEXT.replace('(data "passive data")', '(memory 1) (func (export "oob") (drop (i32.load (i32.const -1))))')
    # No compiler emits debuggable code yet, so ordinary code is loaded as if it were.
    monkeypatch.setattr(compiled_module, "check_engine", lambda image, tunables: None)
    engine = EngineState(Tunables(debug_guest=True))
    module = CompiledModule.from_bytes(engine, image(text))
    one, two = VMStore(engine), VMStore(engine)
    instances = [one.instantiate(module, []), two.instantiate(module, [])]
    codes = [s.registry.store_code(module.engine_code) for s in (one, two)]
    assert all(c is not None and c.is_private for c in codes)
    original = module.engine_code.text_range().start.raw()
    starts = {c.text_range().start.raw() for c in codes if c is not None} | {original}
    assert len(starts) == 3
    for start in starts:
        found = lookup_code(start)
        assert found is not None
        assert found[0] is module.engine_code.module_memory_image_source()
    for instance in instances:
        assert instance.export("two").make_callable()() == 2  # type: ignore[union-attr]
        with pytest.raises(WasmtimeError, match="out of bounds memory access") as caught:
            instance.export("oob").make_callable()()  # type: ignore[union-attr]
        assert [f.func_index for f in caught.value.backtrace.frames] == [3]  # type: ignore[attr-defined]
    # A patch in one store is not seen by the other: `one` now returns 2 there.
    memory = codes[0].code_memory_mut()  # type: ignore[union-attr]
    assert memory is not None
    memory.unpublish()
    start, length = module.info.function_range(0)
    body = bytes(memory.text_mut()[start : start + length])
    memory.text_mut()[start : start + length] = body.replace(b"\xb8\x01\0\0\0", b"\xb8\x02\0\0\0")
    memory.publish()
    assert [i.export("one").make_callable()() for i in instances] == [2, 1]  # type: ignore[union-attr]
    del caught, instance, instances, one, codes, memory, two, found
    gc.collect()
    assert [s for s in starts if lookup_code(s)] == [original]


def test_modules_without_functions_have_no_range() -> None:
    workshop = Workshop()
    module = workshop.module("(module (memory 1))")
    workshop.store.instantiate(module, [])
    workshop.store.instantiate(workshop.module("(module (memory 2))"), [])
    assert len(list(workshop.store.registry.loaded_modules())) == 2
    assert module.serialize() == image("(module (memory 1))")
