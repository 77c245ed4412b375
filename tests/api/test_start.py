"""The bundles of bytecode that a start reads instead of a hundred files (`wasmforge/_start.py`): they are made, used,
and never preferred to a source that changed; and they hold what is needed together."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wasmforge
from wasmforge._start_groups import GROUPS

BEFORE = {
    "engine": (),
    "kept": ("engine",),
    "linker": ("engine",),
    "loading": ("engine", "linker"),
    "wasi": ("engine", "linker"),
    "config": ("engine", "linker", "wasi"),
}
"""The groups that have been imported when one is asked for."""

SHOW = """
import wasmforge
wasmforge.Engine
import wasmforge.runtime.store as store, wasmforge.engine as engine
print(type(store.__loader__).__name__, getattr(engine, "EDITED", None), sys.meta_path[0].__class__.__name__)
"""


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    source = Path(wasmforge.__file__).parent
    copy = tmp_path / "wasmforge"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    yield copy
    copy.chmod(0o755)


def run(package: Path, *options: str, code: str = SHOW) -> list[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    code = f"import sys; sys.path.insert(0, {str(package.parent)!r})\n{code}"
    result = subprocess.run(
        [sys.executable, "-S", *options, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def bundle(package: Path) -> Path:
    (found,) = (package / "__pycache__").glob("_start.*.engine.bundle")
    return found


def test_the_first_start_makes_it_and_the_second_uses_it(package: Path) -> None:
    assert run(package)[0] == "SourceFileLoader"
    assert bundle(package).is_file()
    loader, _, finder = run(package)
    assert loader == "_Loader"
    assert finder != "_Finder"  # it stands there only during the import


def test_an_edited_source_is_what_runs(package: Path) -> None:
    run(package)
    with open(package / "engine.py", "a", encoding="utf-8") as file:
        file.write("\nEDITED = 'yes'\n")
    assert run(package)[:2] == ["SourceFileLoader", "yes"]
    assert run(package)[:2] == ["_Loader", "yes"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_bundle_is_made_again(package: Path, damage: str) -> None:
    run(package)
    data = bytearray(bundle(package).read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0x10
    bundle(package).write_bytes(data[: {"cut": len(data) // 3, "flip": len(data), "empty": 0}[damage]])
    assert run(package)[0] == "SourceFileLoader"
    assert run(package)[0] == "_Loader"


def test_a_package_that_moved_does_not_run_the_old_one(package: Path) -> None:
    run(package)
    moved = package.parent / "elsewhere" / "wasmforge"
    shutil.copytree(package, moved)  # with __pycache__ and all times
    assert run(moved)[0] == "SourceFileLoader"


def test_nothing_is_written_when_bytecode_is_not(package: Path) -> None:
    run(package, "-B")
    assert not (package / "__pycache__").exists()


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_is_what_its_modules_load_in_the_order_in_which_they_need_each_other(group: str) -> None:
    """Whatever is not in the lists is found in the slow way; whatever is needed by none would be loaded in vain."""
    before = [name for other in BEFORE[group] for name in GROUPS[other]]
    code = (
        f"import wasmforge\nfor name in {before!r}: __import__(name)\nbefore = set(sys.modules)\n"
        f"for name in {GROUPS[group]!r}: __import__(name)\n"
        "print(*(name for name in sys.modules if name not in before and name.startswith('wasmforge.')))"
    )
    loaded = run(Path(wasmforge.__file__).parent, "-B", code=code)
    names = [name.removeprefix("wasmforge.") for name in loaded]
    assert tuple(loaded) == GROUPS[group], f"the list of {group!r} has to be:\n{' '.join(names)}"


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_from_its_bundle_is_the_modules_that_the_import_system_makes(package: Path, group: str) -> None:
    code = f"""
import wasmforge._start
wasmforge._start.import_together(*{(*BEFORE[group], group)!r})
for name in {GROUPS[group]!r}:
    module = sys.modules[name]
    parent, _, child = name.rpartition(".")
    spec = module.__spec__
    print(name, module.__file__, module.__cached__, module.__package__, getattr(module, "__path__", None),
          getattr(sys.modules[parent], child) is module, spec.name, spec.origin, spec.parent, spec.has_location,
          spec.submodule_search_locations, type(spec.loader).__name__, sorted(vars(module)), sep="|")
"""
    made, used = run(package, code=code), run(package, code=code)
    assert "_Loader" not in " ".join(made)
    assert [line.replace("|_Loader|", "|SourceFileLoader|") for line in used] == made
    assert "|_Loader|" in " ".join(used)


def test_objects_of_the_program_are_still_collected_afterwards(package: Path) -> None:
    code = """
import gc, weakref
class Node: pass
node = Node()
node.self = node
seen = weakref.ref(node)
del node
import wasmforge
wasmforge.Engine
gc.collect()
print(seen() is None, gc.isenabled(), gc.get_freeze_count())
"""
    run(package, code=code)
    assert run(package, code=code) == ["True", "True", "0"]


def test_a_collector_that_rests_and_objects_that_are_frozen_stay_so(package: Path) -> None:
    code = """
import gc
gc.disable()
gc.freeze()
frozen = gc.get_freeze_count()
import wasmforge
wasmforge.Engine
print(gc.isenabled(), gc.get_freeze_count() == frozen)
"""
    run(package, code=code)
    assert run(package, code=code)[:2] == ["False", "True"]


def test_threads_that_start_together_get_the_same_modules(package: Path) -> None:
    """Two that load one group at the same time must not both run a module: there would be two of each class."""
    code = """
import threading
import wasmforge
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(6)
wrong = []
def start():
    barrier.wait()
    try:
        wasmforge.Engine(); wasmforge.WasiConfig()
    except BaseException as error:
        wrong.append(repr(error))
threads = [threading.Thread(target=start) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for name, module in list(sys.modules.items()):
    if name.startswith("wasmforge."):
        for value in vars(module).values():
            home = sys.modules.get(getattr(value, "__module__", None) or "")
            if isinstance(value, type) and home is not None and "<locals>" not in value.__qualname__:
                if getattr(home, value.__name__, value) is not value:
                    wrong.append(f"{name} has another {home.__name__}.{value.__name__}")
print(*wrong, sep=";")
"""
    run(package, code=code)
    for _ in range(10):
        assert run(package, code=code) == []
