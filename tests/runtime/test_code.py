"""Program counters of engine code and store code are different types (tables A1-01 to A1-07): mixing them is an error
for mypy and at run time, and arithmetic wraps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wasmforge.runtime.code import EngineCodePC, PCRange, StoreCodePC

KINDS = [EngineCodePC, StoreCodePC]


@pytest.mark.parametrize("kind", KINDS)
def test_arithmetic_wraps_at_the_end_of_the_address_space(kind: type[EngineCodePC] | type[StoreCodePC]) -> None:
    last = kind(2**64 - 1)
    assert (last + 2).raw() == 1
    assert (kind(1) - 2).raw() == 2**64 - 1
    assert type(last + 2) is kind
    assert kind(2**64 + 5) == kind(5)


@pytest.mark.parametrize("kind", KINDS)
def test_offset_of_takes_the_range_as_half_open(kind: type[EngineCodePC] | type[StoreCodePC]) -> None:
    pcs = PCRange(kind(100), kind(110))
    assert [kind.offset_of(pcs, pc) for pc in (99, 100, 109, 110)] == [None, 0, 9, None]  # type: ignore[arg-type]
    assert len(pcs) == 10
    assert kind(109) in pcs
    assert kind(110) not in pcs


def test_kinds_do_not_mix_at_run_time() -> None:
    engine, store = EngineCodePC(64), StoreCodePC.from_raw(64)
    assert engine != store
    assert engine == EngineCodePC(64)
    assert hash(engine) == hash(EngineCodePC(64))
    assert len({engine, store}) == 2
    for operation in (
        lambda: engine + store,  # type: ignore[operator]
        lambda: engine - store,  # type: ignore[operator]
        lambda: engine < store,  # type: ignore[operator]
        lambda: store <= engine,  # type: ignore[operator]
    ):
        with pytest.raises(TypeError):
            operation()
    assert store not in PCRange(EngineCodePC(0), EngineCodePC(100))  # type: ignore[operator]
    assert EngineCodePC(1) < EngineCodePC(2) <= EngineCodePC(2)


WRONG = {
    "def f(a: EngineCodePC, b: StoreCodePC) -> None:\n    a = b\n": "assignment",
    "def f(a: EngineCodePC, b: StoreCodePC) -> bool:\n    return a < b\n": "operator",
    "def f(a: EngineCodePC, b: StoreCodePC) -> object:\n    return a + b\n": "operator",
    "def f(a: EngineCodePC, b: StoreCodePC) -> object:\n    return PCRange(a, b)\n": "type-var",
    "def f(a: EngineCodePC, b: PCRange[StoreCodePC]) -> bool:\n    return a in b\n": "operator",
    "def f(b: PCRange[StoreCodePC]) -> object:\n    return EngineCodePC.offset_of(b, 1)\n": "arg-type",
    "def f(a: EngineCodePC) -> int:\n    return a\n": "return-value",
    "def f(r: ModuleRegistry, a: EngineCodePC) -> object:\n    return r.lookup_frame_info(a)\n": "arg-type",
}
RIGHT = "def f(r: ModuleRegistry, a: StoreCodePC) -> object:\n    return r.lookup_frame_info(a + 1)\n"


def test_mypy_refuses_to_mix_them(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    root = Path(__file__).parents[2]
    header = (
        "from wasmforge.runtime.code import EngineCodePC, PCRange, StoreCodePC\n"
        "from wasmforge.runtime.module_registry import ModuleRegistry\n"
    )
    files = []
    for number, body in enumerate([*WRONG, RIGHT]):
        file = tmp_path / f"case{number}.py"
        file.write_text(header + body)
        files.append(str(file))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", *files],
        capture_output=True,
        text=True,
        cwd=root,
        env={"MYPYPATH": str(root / "src"), "PATH": "", "MYPY_CACHE_DIR": str(root / ".mypy_cache" / "snippets")},
        check=False,
    )
    for number, code in enumerate(WRONG.values()):
        assert any(f"case{number}.py" in line and f"[{code}]" in line for line in done.stdout.splitlines()), (
            number,
            done.stdout + done.stderr,
        )
    assert f"case{len(WRONG)}.py" not in done.stdout, done.stdout
