"""The script that builds the guests: it builds what changed, only that, and says what the compiler said."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import build_guests

missing = build_guests.compiler_missing()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))

PROGRAM = '#include <stdio.h>\nint main(void) { puts("%s"); return 0; }\n'


def test_builds_again_only_when_something_changed(tmp_path: Path) -> None:
    source, output = tmp_path / "hello.c", tmp_path / "out" / "hello.wasm"
    source.write_text(PROGRAM % "one")
    assert build_guests.compile_c(source, output)
    assert output.read_bytes()[:8] == b"\0asm\1\0\0\0"
    assert not build_guests.compile_c(source, output)
    source.write_text(PROGRAM % "two")
    assert build_guests.compile_c(source, output)
    assert b"two" in output.read_bytes()


def test_error_carries_what_the_compiler_said(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int main(void) { return undeclared_name; }\n")
    with pytest.raises(build_guests.BuildError, match=r"wrong\.c: .*undeclared_name"):
        build_guests.compile_c(source, tmp_path / "wrong.wasm")
    assert not list(tmp_path.glob("wrong.wasm*"))


def test_unknown_guest_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_guests.main(["no_such_guest"])
    assert "compressor" in capsys.readouterr().err
