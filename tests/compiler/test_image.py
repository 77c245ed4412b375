"""The image, its tables and its module record: what is written is read back, and damage is a WasmtimeError."""

from __future__ import annotations

import contextlib
import random
from array import array

import pytest
from elftools.elf.elffile import ELFFile

from wasmforge.binary import decode, encode
from wasmforge.compiler.compatibility import COMPILER_VERSION, check_engine
from wasmforge.compiler.environ import Tunables
from wasmforge.compiler.image import (
    ADDRESS_MAP_SECTION,
    INFO_SECTION,
    MEMORY_SECTION,
    NAME_SECTION,
    PAGE,
    RODATA_WASM_SECTION,
    TEXT_SECTION,
    TRAP_SECTION,
    Image,
)
from wasmforge.compiler.image_builder import ImageBuilder
from wasmforge.compiler.info import CompiledModuleInfo
from wasmforge.compiler.llvm import compile_module
from wasmforge.compiler.memory_images import memory_images
from wasmforge.compiler.tables import address_map, function_names, trap_table
from wasmforge.compiler.trap import TrapKind
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.text import parse
from wasmforge.validation import validate
from wasmforge.version import VERSION

RICH = """(module $rich
  (type $t (func (param i32) (result i32)))
  (type $again (func (param i32) (result i32)))
  (import "env" "f" (func $f (type $t)))
  (import "env" "g" (global $g i32))
  (import "env" "t" (table 1 10 funcref))
  (memory (export "memory") 1 3)
  (table $own 4 externref)
  (global $m (mut i64) (i64.const 5))
  (func $a (export "a") (type $again) (i32.add (call $f (local.get 0)) (i32.load (local.get 0))))
  (func $b (param f64) (result i32 i64 f32) (i32.const 1) (i64.const 2) (f32.const 3.5))
  (func $start)
  (start $start)
  (elem (i32.const 0) $a)
  (elem declare func $b)
  (data (i32.const 100) "first")
  (data (i32.const 102) "SECOND")
  (data "passive")
)"""


def compiled(source: str, tunables: Tunables | None = None) -> bytes:
    module = decode(encode(parse(source)))
    return compile_module(module, validate(module), tunables or Tunables(), workers=1)


@pytest.fixture(scope="module")
def image() -> bytes:
    return compiled(RICH)


def test_the_module_record_comes_back(image: bytes) -> None:
    info = CompiledModuleInfo.decode(Image(image).section(INFO_SECTION))
    module = decode(encode(parse(RICH)))
    assert info.name == "rich"
    assert list(info.types) == module.types
    assert [(i.module, i.name, i.kind, i.type) for i in info.imports] == [
        (i.module, i.name, i.kind, i.type) for i in module.imports
    ]
    assert info.all_functions() == module.all_functions()
    assert info.all_tables() == module.all_tables()
    assert info.all_memories() == module.all_memories()
    assert info.all_globals() == module.all_globals()
    assert [(e.name, e.kind, e.index) for e in info.exports] == [(e.name, e.kind, e.index) for e in module.exports]
    assert info.start == module.start == 3
    assert list(info.func_refs) == [1, 2, 3]
    assert set(info.wasm_to_array) == set(range(len(module.types)))
    assert info.wasm_to_array[0] == info.wasm_to_array[1]
    assert info.array_to_wasm[0] == info.array_to_wasm[1]
    assert CompiledModuleInfo.decode(info.encode()).encode() == info.encode()


def test_function_ranges_find_their_functions(image: bytes) -> None:
    info = CompiledModuleInfo.decode(Image(image).section(INFO_SECTION))
    for k in range(3):
        start, length = info.function_range(k)
        assert [info.function_at(o) for o in (start, start + length - 1)] == [k, k]
        assert info.function_at(start + length) != k
    for start, length in [*info.array_to_wasm.values(), *info.wasm_to_array.values()]:
        assert info.function_at(start) is None and info.function_at(start + length - 1) is None
    with pytest.raises(IndexError):
        info.function_range(-1)


def test_data_segments_become_a_memory_image(image: bytes) -> None:
    """Active segments apply in order, the later one over the earlier (section 4.5.4)."""
    loaded = Image(image)
    info = CompiledModuleInfo.decode(loaded.section(INFO_SECTION))
    placed = info.memory_images[0]
    assert placed.memory_offset == 0 and placed.length == PAGE
    start = loaded.section_range(MEMORY_SECTION)[0] + placed.image_offset
    assert start % PAGE == 0
    assert image[start + 99 : start + 109] == b"\0fiSECOND\0"
    passive = info.data[2]
    constants = bytes(loaded.section(RODATA_WASM_SECTION))
    assert constants[passive.start : passive.start + passive.length] == b"passive"


@pytest.mark.parametrize(
    "fields",
    [
        '(memory 1) (data (i32.const 65535) "ab")',
        '(import "" "g" (global i32)) (memory 1) (data (i32.const 0) "a") (data (global.get 0) "b")',
        '(import "" "m" (memory 1)) (data (i32.const 0) "a")',
        '(memory 65536) (data (i32.const 0) "a") (data (i32.const 0xFFFFFFFF) "b")',
        "(memory 0)",
    ],
    ids=["out of bounds", "unknown offset", "imported memory", "too sparse", "no data"],
)
def test_no_image_where_it_cannot_be_known_or_afforded(fields: str) -> None:
    assert memory_images(parse(f"(module {fields})")) == {}


def test_offsets_may_be_extended_constant_expressions() -> None:
    found = memory_images(parse('(module (memory 1) (data (i32.add (i32.const 4096) (i32.const 3)) "x"))'))
    assert found[0].start == 4096 and found[0].data[:5] == b"\0\0\0x\0"


def test_other_tools_can_read_the_file(image: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("elf") / "image"
    path.write_bytes(image)
    with path.open("rb") as f:
        elf = ELFFile(f)
        assert elf.get_section_by_name(TEXT_SECTION)["sh_offset"] == PAGE
        symbols = {s.name: (s["st_value"], s["st_size"]) for s in elf.get_section_by_name(".symtab").iter_symbols()}
    info = CompiledModuleInfo.decode(Image(image).section(INFO_SECTION))
    assert symbols["wasm[0]::function[1]"] == tuple(info.function_range(0))
    assert {name: (start, size) for name, start, size in Image(image).symbols()}.items() <= symbols.items()


def test_names_are_found_in_place(image: bytes) -> None:
    names = Image(image).section(NAME_SECTION)
    assert [function_names.lookup(names, x) for x in range(5)] == ["f", "a", "b", "start", None]


def test_nothing_is_left_to_relocate_and_nothing_is_writable(image: bytes) -> None:
    names = Image(image).section_names()
    assert not [n for n in names if n.startswith((".rela", ".rel", ".data", ".bss", ".got", ".plt"))]


def test_the_same_module_gives_the_same_bytes(image: bytes) -> None:
    assert compiled(RICH) == image


# --- Damage -----------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(image: bytes) -> None:
    """Threat: a damaged cache file must never run."""
    rng = random.Random(1)
    for _ in range(300):
        damaged = bytearray(image)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        with pytest.raises(WasmtimeError):
            Image(damaged)


def test_every_cut_is_noticed(image: bytes) -> None:
    rng = random.Random(2)
    for size in [*range(0, 200, 7), *(rng.randrange(len(image)) for _ in range(100)), len(image) - 1]:
        with pytest.raises(WasmtimeError):
            Image(image[:size])
    with pytest.raises(WasmtimeError):
        Image(image + b"\0")


@pytest.mark.parametrize("name", [INFO_SECTION, ADDRESS_MAP_SECTION, TRAP_SECTION, NAME_SECTION])
def test_damage_behind_a_good_checksum_is_an_error_too(image: bytes, name: str) -> None:
    """Should damage get past the checksum of the file, the tables still raise nothing but WasmtimeError."""
    rng = random.Random(3)
    contents = bytes(Image(image).section(name))
    readers = {
        INFO_SECTION: lambda d: CompiledModuleInfo.decode(d).function_at(0),
        ADDRESS_MAP_SECTION: lambda d: [address_map.lookup(d, o) for o in range(0, 400, 3)],
        TRAP_SECTION: lambda d: [trap_table.lookup(d, o) for o in range(0, 400, 3)],
        NAME_SECTION: lambda d: [function_names.lookup(d, x) for x in range(6)],
    }
    for _ in range(400):
        damaged = bytearray(contents)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        data = bytes(damaged[: rng.randrange(len(damaged) + 1)] if rng.random() < 0.3 else damaged)
        with contextlib.suppress(WasmtimeError):
            readers[name](data)


def test_other_files_are_refused_by_name() -> None:
    with pytest.raises(WasmtimeError, match="not a compiled module"):
        Image(b"\0asm\1\0\0\0" * 20)
    with open("/proc/self/exe", "rb") as f, pytest.raises(WasmtimeError, match="not one that wasmforge wrote"):
        Image(f.read())


# --- Compatibility ----------------------------------------------------------------------------------------------


def test_the_engine_record_is_checked(image: bytes) -> None:
    check_engine(Image(image), Tunables())
    for changed in (
        Tunables(memory_guard_size=65536),
        Tunables(signals_based_traps=False),
        Tunables(optimization="none"),
    ):
        with pytest.raises(WasmtimeError, match="compiled module was made with"):
            check_engine(Image(image), changed)


def test_the_version_is_the_package_s() -> None:
    assert COMPILER_VERSION == VERSION


def test_what_is_not_supported_is_said() -> None:
    with pytest.raises(WasmtimeError, match="debug_guest"):
        compiled("(module)", Tunables(debug_guest=True))


# --- Tables -----------------------------------------------------------------------------------------------------


def test_address_map_holds_from_entry_to_entry() -> None:
    section = address_map.encode(array("I", [4, 6, 10, 12]), array("I", [7, 7, address_map.NO_POSITION, 9]))
    assert [address_map.lookup(section, o) for o in (0, 3, 4, 9, 10, 11, 12, 1 << 31)] == [
        None, None, 7, 7, None, None, 9, 9,
    ]  # fmt: skip
    assert address_map.lookup(address_map.encode(array("I"), array("I")), 5) is None
    with pytest.raises(ValueError, match="ascend"):
        address_map.encode(array("I", [4, 4]), array("I", [1, 2]))


def test_trap_table_holds_from_entry_to_entry() -> None:
    section = trap_table.encode(array("I", [4, 8, 9]), array("B", [2, 0, 8]))
    assert [trap_table.lookup(section, o) for o in (3, 4, 7, 8, 9)] == [
        None,
        TrapKind.MEMORY_OUT_OF_BOUNDS,
        TrapKind.MEMORY_OUT_OF_BOUNDS,
        None,
        TrapKind.INTEGER_DIVISION_BY_ZERO,
    ]


def test_function_names_of_any_index_and_alphabet() -> None:
    section = function_names.encode({0: "", 7: "größe", 4_000_000_000: "x" * 1000})
    assert [function_names.lookup(section, x) for x in (0, 1, 7, 4_000_000_000)] == ["", None, "größe", "x" * 1000]


def test_the_text_comes_first_with_its_constants_behind() -> None:
    builder = ImageBuilder()
    builder.add_text(b"\x90" * 100, b"constants", 128)
    builder.add_section("own", b"x")
    builder.add_symbol("f", 3, 5)
    image = Image(builder.build())
    assert (image.text_offset, image.text_size, image.code_size) == (PAGE, 100, PAGE)
    assert bytes(image.data[PAGE + 128 : PAGE + 137]) == b"constants"
    assert image.symbols() == [("f", 3, 5)]
    with pytest.raises(ValueError, match="first"):
        builder.add_text(b"", b"", 0)
    with pytest.raises(WasmtimeError, match="section other is missing"):
        image.section("other")
