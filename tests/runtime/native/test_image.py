"""The image of the gates: found in the cache, rebuilt when damaged or outdated, refused when others could have written
it.
"""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from wasmforge.runtime.native import first_use, loader
from wasmforge.runtime.native.build import compile_object
from wasmforge.runtime.native.image import decode, encode
from wasmforge.runtime.native.link import link
from wasmforge.syntax.errors import WasmtimeError

SCRIPT = """
import sys, time
start = time.perf_counter()
from wasmforge.runtime.native import gates
g = gates()
print("built" if any("subprocess" == m for m in sys.modules) else "found", "llvmlite" in sys.modules)
"""


@pytest.fixture(scope="module")
def image() -> bytes:
    """Built in a child, because other tests change LLVM's global options in this process."""
    data = first_use.build()
    assert decode(data)[0].key == loader.source_key()
    return data


@pytest.fixture
def environment(child_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**child_environment, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}


def known(environment: dict[str, str]) -> list[Path]:
    """Copies of the image under the state of the sources, which are looked for first."""
    return list(Path(environment["XDG_CACHE_HOME"]).glob("wasmforge/known-gates-*.bin"))


def start(environment: dict[str, str], script: str = SCRIPT) -> str:
    """Runs a process that does not know the sources' state."""
    for file in known(environment):
        file.unlink()
    return start_again(environment, script)


def start_again(environment: dict[str, str], script: str = SCRIPT) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def seed(environment: dict[str, str], image: bytes) -> Path:
    """A cache with a good file, which the next process finds."""
    file = Path(environment["XDG_CACHE_HOME"], "wasmforge", f"gates-{loader.source_key().decode()}.bin")
    file.parent.mkdir()
    file.write_bytes(image)
    file.chmod(0o600)
    return file


def cached(environment: dict[str, str]) -> Path:
    (file,) = Path(environment["XDG_CACHE_HOME"], "wasmforge").glob("gates-*.bin")
    return file


def test_image_is_cached_and_found_without_llvmlite(environment: dict[str, str], image: bytes) -> None:
    assert start(environment) == "built False", "the compiler runs in a child"
    file = cached(environment)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {*file.parent.iterdir()} == {file, *known(environment)}, "no temporary files are left"
    assert file.read_bytes() == image, "the build is deterministic"
    assert start(environment) == "found False"


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "text", "other key", "directory"])
def test_damaged_cache_is_rebuilt(environment: dict[str, str], image: bytes, damage: str) -> None:
    file = seed(environment, image)
    good = image
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    decoded, _ = decode(good)
    other = encode(type(decoded)(b"x" * 32, decoded.text, decoded.writable_size, decoded.imports, decoded.symbols))
    if damage == "directory":
        file.unlink()
        file.mkdir()
    else:
        contents: dict[str, bytes] = {
            "truncated": good[:-4096],
            "empty": b"",
            "flipped": bytes(flipped),
            "text": b"hello",
            "other key": other,
        }
        file.write_bytes(contents[damage])
    assert start(environment) == "built False"
    if damage != "directory":
        assert file.read_bytes() == good
        assert start(environment) == "found False"


@pytest.mark.parametrize("attack", ["none", "empty", "flipped", "other key", "mode", "link", "source"])
def test_the_copy_by_state_of_the_sources(environment: dict[str, str], image: bytes, attack: str) -> None:
    good_file = seed(environment, image)
    assert start_again(environment) == "found False"
    (file,) = known(environment)
    good = file.read_bytes()
    good_file.unlink()  # so that a copy that is not used is built again
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    if attack == "mode":
        file.chmod(0o602)
    elif attack == "link":
        file.rename(file.with_name("elsewhere"))
        file.symlink_to(file.with_name("elsewhere"))
    elif attack == "source":  # made of other sources, under this name
        file.write_bytes(image)
    elif attack != "none":
        file.write_bytes({"empty": b"", "flipped": bytes(flipped), "other key": good[:20] + b"x" + good[21:]}[attack])
    assert start_again(environment) == ("found False" if attack == "none" else "built False")
    assert known(environment) == [file]
    assert file.read_bytes() == good
    assert not file.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_attack_file_that_others_may_write(environment: dict[str, str], image: bytes) -> None:
    file = seed(environment, image)
    assert start(environment) == "found False"
    for mode in (0o620, 0o602):
        file.chmod(mode)
        assert start(environment) == "built False"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, "replaced by one of our own"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_attack_file_of_another_user(environment: dict[str, str], image: bytes) -> None:
    file = seed(environment, image)
    assert start(environment) == "found False"
    os.chown(file, 12345, -1)
    assert start(environment) == "built False"
    assert file.stat().st_uid == os.geteuid()


def test_attack_symbolic_link(environment: dict[str, str], image: bytes, tmp_path: Path) -> None:
    file = seed(environment, image)
    assert start(environment) == "found False"
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    before = elsewhere.read_bytes()
    file.symlink_to(elsewhere)
    assert start(environment) == "built False"
    assert not file.is_symlink()
    assert elsewhere.read_bytes() == before, "the link's target was not written"


def test_cache_that_cannot_be_written(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert start({**environment, "XDG_CACHE_HOME": str(tmp_path / "file")}) == "built False"
    assert start({**environment, "XDG_CACHE_HOME": "relative"}) == "built False", "HOME/.cache instead"
    assert (tmp_path / ".cache" / "wasmforge").is_dir()


def test_processes_may_build_at_the_same_time(environment: dict[str, str]) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE) for _ in range(4)
    ]
    assert {child.communicate()[0].split()[0] for child in children} <= {b"built", b"found"}
    assert all(child.returncode == 0 for child in children)
    assert start(environment) == "found False"


def test_image_built_by_hand(environment: dict[str, str], image: bytes, tmp_path: Path) -> None:
    """What puts the image into a wheel; a packaged image may belong to whoever owns the package's files."""
    file = tmp_path / "gates.bin"
    command = [sys.executable, "-m", "wasmforge.runtime.native.build", str(file)]
    subprocess.run(command, env=environment, check=True, timeout=60)
    assert file.read_bytes() == image
    file.chmod(0o644)
    assert loader._try_file(str(file), loader.source_key(), (os.geteuid(),)) is not None
    assert loader._try_file(str(file), loader.source_key(), (os.geteuid() + 1,)) is None


def test_an_embedded_interpreter_is_told_what_to_do(environment: dict[str, str]) -> None:
    script = """
import sys
sys.executable = None
from wasmforge.runtime.native import gates
try:
    gates()
except Exception as error:
    print(type(error).__name__, error)
"""
    assert "Run `python -m wasmforge.runtime.native.build` once" in start(environment, script)


def test_missing_llvmlite_is_explained(environment: dict[str, str]) -> None:
    script = """
import sys
sys.path.insert(0, %r)
from wasmforge.runtime.native import gates
try:
    gates()
except Exception as error:
    print(type(error).__name__, error)
"""
    directory = Path(environment["XDG_CACHE_HOME"], "block", "llvmlite")
    directory.mkdir(parents=True)
    (directory / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'llvmlite'\")")
    out = start(environment, script % str(directory.parent))
    assert out.startswith("WasmtimeError cannot build the gates")
    assert "No module named 'llvmlite'" in out
    assert "install llvmlite" in out


def test_noexec_cache_is_copied(environment: dict[str, str], image: bytes) -> None:
    """Where a file cannot be mapped for execution the text is copied; here because there is no file at all."""
    script = """
from wasmforge.runtime.native import loader
from wasmforge.runtime.native.image import decode
image, _ = decode(open(%r, "rb").read())
m = loader._map(image, None, 0)
import ctypes
ctypes.CFUNCTYPE(ctypes.c_int)  # the trap table is empty: an address in no range
print(m.address("enter") > 0)
"""
    file = Path(environment["XDG_CACHE_HOME"], "copy.bin")
    file.write_bytes(image)
    assert start(environment, script % str(file)) == "True"


def test_decode_survives_any_damage(image: bytes) -> None:
    rng = random.Random(3)
    for _ in range(300):
        data = bytearray(image)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(200 if rng.random() < 0.5 else len(data))] ^= 1 << rng.randrange(8)
        with pytest.raises(WasmtimeError):
            decode(bytes(data))
    for size in (0, 1, 59, 4096, len(image) - 1):
        with pytest.raises(WasmtimeError):
            decode(image[:size])


def test_image_is_position_independent(image: bytes) -> None:
    """Two copies at different addresses need nothing but their slots filled; link() refuses other relocations."""
    decoded, offset = decode(image)
    assert offset % 4096 == 0
    assert len(decoded.text) % 4096 == 0
    with pytest.raises(WasmtimeError, match="needs the load address"):
        link(compile_object("@a = hidden global i32 0\n@b = hidden constant ptr @a"), bytes(32))
    with pytest.raises(WasmtimeError, match="must start as zero"):
        link(compile_object("@a = hidden global i32 5"), bytes(32))
    with pytest.raises(WasmtimeError, match="other than through a slot"):
        link(compile_object("declare void @x()\ndefine void @f() {\n call void @x()\n ret void\n}"), bytes(32))


def test_only_stable_functions_of_cpython_are_called(image: bytes) -> None:
    """One image serves every CPython from 3.11 on: all it imports is in the stable ABI, but for PyObject_Vectorcall in
    3.11.
    """
    from wasmforge.runtime.native.text import DATA_IMPORTS, FUNCTION_IMPORTS

    decoded, _ = decode(image)
    made_by_llvm = {"memcpy", "memmove", "memset"}
    assert set(decoded.imports) <= {*FUNCTION_IMPORTS, *DATA_IMPORTS} | made_by_llvm
    unstable = [n for n in decoded.imports if n.startswith("_Py") and n != "_Py_NoneStruct"]
    assert not unstable
