"""`objdump` prints the machine code with what the image's tables say of it (reference, E2-35 to E2-47)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wasmforge.compiler.image import CHECKSUM, CHECKSUM_AT, file_checksum

from .conftest import Result

MODULE = """(module (memory 1)
  (func $load (export "load") (param i32) (result i32) (i32.load (local.get 0)))
  (func $div (param i32 i32) (result i32) (i32.div_u (local.get 0) (local.get 1)))
  (func $loop (export "loop") (param i32) (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"""

# The baseline compiler is ours, so its code changes only with our sources.
GOLDEN = """\
wasm[0]::function[0]::load:
           ╭─╼ addrmap: 0x3b
            pushq %rbp
            movq %rsp, %rbp
            movq 0x40(%r13), %r10
            movl %edi, %edi
           ╭─╼ addrmap: 0x3d
            movl (%r10, %rdi), %esi
           ╰─╼ trap: MemoryOutOfBounds
            movq %rsi, %rax
            leave
            retq
"""
BASELINE = ("-C", "compiler=baseline")


def test_a_function(run: Callable[..., Result]) -> None:
    assert run("objdump", *BASELINE, "--filter", "::load", MODULE) == Result(0, GOLDEN, "")


def test_an_image_is_read_as_it_is(run: Callable[..., Result]) -> None:
    assert run("compile", *BASELINE, "-o", "app.cwasm", MODULE).status == 0
    assert run("objdump", "--filter", "::load", "app.cwasm") == Result(0, GOLDEN, "")
    ignored = run("objdump", "-O", "opt-level=0", "app.cwasm")
    assert ignored.status == 2
    assert "`-O opt-level=0` does not work with an image" in ignored.err


def test_both_compilers(run: Callable[..., Result]) -> None:
    for compiler in ("baseline", "llvm"):
        result = run("objdump", "-C", f"compiler={compiler}", MODULE)
        assert result.status == 0
        assert [line for line in result.out.splitlines() if line.startswith("wasm[")] == [
            "wasm[0]::function[0]::load:", "wasm[0]::function[1]::div:", "wasm[0]::function[2]::loop:",
        ]  # fmt: skip
        assert "╰─╼ trap: MemoryOutOfBounds" in result.out


def test_what_is_shown(run: Callable[..., Result]) -> None:
    plain = run("objdump", *BASELINE, "--addrmap", "n", "--traps=no", MODULE).out
    assert "addrmap" not in plain
    assert "trap" not in plain
    lines = run("objdump", *BASELINE, "--bytes", "--addresses", "--address-width", "6", "--filter=load", MODULE).out
    assert ": 55                             pushq %rbp\n" in lines
    assert all(line[:6].strip() for line in lines.splitlines()[1:] if "╼" not in line)
    jumps = run("objdump", *BASELINE, "--address-jumps", "--filter", "::loop", MODULE).out.splitlines()
    shown = [line.split(":")[0].strip() for line in jumps[1:] if ":" in line and "╼" not in line]
    assert len(shown) == 1
    assert any(line.endswith(f" 0x{shown[0]}") for line in jumps if " j" in line)


def test_kinds(run: Callable[..., Result]) -> None:
    def names(kind: str) -> list[str]:
        out = run("objdump", "--funcs", kind, MODULE).out
        return [line for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]

    assert all("_trampoline[" in name for name in names("trampoline"))
    assert names("libcall") == []
    assert sorted(names("all")) == sorted(names("wasm") + names("trampoline") + names("builtin"))


def test_colours(run: Callable[..., Result]) -> None:
    assert "\x1b[" not in run("objdump", *BASELINE, MODULE).out
    assert "\x1b[" in run("objdump", *BASELINE, "--color", "always", MODULE).out


def test_a_name_cannot_write_on_the_terminal(run: Callable[..., Result]) -> None:
    """Threat: names with control characters, or without end."""
    out = run("objdump", f'(module (func $"\\1b[2J\\u{{202e}}{"a" * 5000}"))').out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert max(map(len, out.splitlines())) < 300


def test_damaged_images(run: Callable[..., Result], tmp_path: Path) -> None:
    """Also with the right checksum, which an attacker can make: an error, never a crash. Nothing of it is run."""
    assert run("compile", "-o", "app.cwasm", MODULE).status == 0
    image = bytearray((tmp_path / "app.cwasm").read_bytes())
    for at in range(0, len(image), 97):
        damaged = bytearray(image)
        damaged[at] ^= 0xFF
        (tmp_path / "bad.cwasm").write_bytes(damaged)
        if at == 0:
            assert run("objdump", "bad.cwasm").status == 1
        CHECKSUM.pack_into(damaged, CHECKSUM_AT, file_checksum(damaged))
        (tmp_path / "bad.cwasm").write_bytes(damaged)
        assert run("objdump", "bad.cwasm").status in (0, 1)


def test_without_capstone_it_says_how_to_get_it(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)
    for command in ("objdump", "explore"):
        result = run(command, MODULE)
        assert result.status == 1
        assert "pip install 'wasmforge[objdump]'" in result.err


@pytest.mark.parametrize(
    "words",
    [
        ("--funcs", "some"),
        ("--color", "blue"),
        ("--address-width", "x"),
        ("--addrmap", "perhaps"),
        ("--stack-maps", "y"),
        ("--exception-tables", "y"),
        ("--frame-tables", "y"),
        ("-W", "timeout=1"),
        ("a", "b"),
    ],
)
def test_refusals(run: Callable[..., Result], words: tuple[str, ...]) -> None:
    result = run("objdump", *words)
    assert result.status == 2
    assert result.err.startswith("error: ")


def test_files_that_are_none(run: Callable[..., Result]) -> None:
    assert run("objdump", "nothing.cwasm").status == 1
    assert run("objdump", "(module (func unknown))").status == 1
