"""Directories in memory answer as directories of the host do: every path operation on the catalogue of paths of
`test_against_wasmtime.py`, and every function on every kind of descriptor, on both; and what is theirs alone.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

import wasmforge
from tests.wasi.guests import BUFFER, PREOPEN, RESULT, DirectGuest
from tests.wasi.test_against_wasmtime import DESCRIPTORS, OPERATIONS, PATHS, _pointer_calls, make_tree, snapshot
from wasmforge import MemoryDirectory, Symlink
from wasmforge.syntax.errors import WasmtimeError
from wasmforge.wasi.context import WasiContext

TREE: dict[str, Any] = {
    "sub": {"g": b"g", "up": Symlink("../../tree/f"), "inside": Symlink("../f")},
    "empty": {},
    "f": b"hello world",
    "link": Symlink("f"),
    "absolute": Symlink("/etc/passwd"),
    "up": Symlink("../../etc/passwd"),
    "loop": Symlink("loop"),
    "dirlink": Symlink("sub"),
    "dangling": Symlink("nothing"),
}


def guest_of(directory: Any, perms: int = 3) -> DirectGuest:
    """A guest that has a directory of any kind as its only one."""
    context = WasiContext()
    opened = directory._open(b"/guest", perms, perms)
    context.preopen(opened)
    return DirectGuest(context=context)


def listing(files: Any, prefix: str = "") -> list[str]:
    """A tree as `snapshot` shows one of the host."""
    result = []
    for name, value in files.items():
        path = f"{prefix}{name}"
        if isinstance(value, Symlink):
            result.append(f"{path}: -> {value}")
        elif isinstance(value, dict):
            result.append(f"{path}: directory")
            result += listing(value, f"{path}/")
        else:
            result.append(f"{path}: {value!r}")
    return result


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_path_gives_the_answer_of_the_host(tmp_path: Path, operation: str) -> None:
    """errno and effect of a path operation on each path of the catalogue, in memory and on the host."""
    root = tmp_path / "tree"
    differences = {}
    for path in PATHS:
        make_tree(root)
        host = DirectGuest(root)
        expected = OPERATIONS[operation](host, path), sorted(snapshot(root))
        host.close()
        directory = MemoryDirectory(TREE)
        guest = guest_of(directory)
        answer = OPERATIONS[operation](guest, path), sorted(listing(directory.to_dict()))
        if answer != expected:
            differences[path] = answer[0], expected[0], answer[1] == expected[1]
    assert not differences


@pytest.mark.parametrize("what", DESCRIPTORS)
def test_every_descriptor_answers_as_on_the_host(tmp_path: Path, what: str) -> None:
    root = tmp_path / "tree"
    make_tree(root)
    directory = MemoryDirectory(TREE)
    answers = []
    for guest in (DirectGuest(root), guest_of(directory)):
        fd = DESCRIPTORS[what](guest)
        guest.put(BUFFER, b"0123456789")
        rows: list[object] = []
        for name, arguments, layout in _pointer_calls(fd):
            guest.iovecs(4)
            result: object = guest.call(name, *arguments)
            if layout and result == "success":
                result = guest.unpack(layout)
            rows.append((name, arguments, result))
        answers.append(rows)
        guest.close()
    assert answers[0] == answers[1]
    assert sorted(snapshot(root)) == sorted(listing(directory.to_dict()))


# --- What a dict becomes, and back


def test_a_dict_is_read_back() -> None:
    directory = MemoryDirectory({"a/b/c.txt": "text", "a": {"d": bytearray(b"\0")}, "link": Symlink("a")})
    guest = guest_of(directory)
    fd = guest.open_or_fail("a/new", oflags=5, rights=66)
    assert guest.write(fd, b"made") == 4
    assert guest.call("path_unlink_file", PREOPEN, "a/d") == "success"
    assert directory.to_dict() == {"a": {"b": {"c.txt": b"text"}, "new": b"made"}, "link": Symlink("a")}
    assert directory["a/new"] == b"made"
    assert "a/d" not in directory
    with pytest.raises(KeyError):
        directory["a/d"]


@pytest.mark.parametrize("files", [{"": b""}, {"..": b""}, {"a/../b": b""}, {"a\0": b""}, {"a": b"", "a/b": b""}])
def test_names_that_cannot_be(files: dict[str, bytes]) -> None:
    with pytest.raises(WasmtimeError, match="name"):
        MemoryDirectory(files)


def test_contents_that_cannot_be() -> None:
    with pytest.raises(TypeError, match="contents of 'a' must be bytes"):
        MemoryDirectory({"a": 3})  # type: ignore[dict-item]


def test_deep_directories_are_read_back() -> None:
    """A guest may nest directories deeper than Python recurses."""
    directory = MemoryDirectory()
    guest = guest_of(directory)
    fd = PREOPEN
    for _ in range(3000):
        assert guest.call("path_create_directory", fd, "d") == "success"
        opened = guest.open_or_fail("d", oflags=2, directory=fd)
        if fd != PREOPEN:
            guest.call("fd_close", fd)
        fd = opened
    depth = 0
    files: Any = directory.to_dict()
    while files:
        files = files["d"]
        depth += 1
    assert depth == 3000


# --- Attacks


def test_the_volume_is_bounded() -> None:
    """Contents, holes, names and nodes all count; what is removed is given back."""
    directory = MemoryDirectory(max_size=100_000)
    guest = guest_of(directory)
    fd = guest.open_or_fail("f", oflags=5, rights=66)
    assert guest.call("fd_filestat_set_size", fd, 1 << 40) == "nospc"
    assert guest.call("fd_filestat_set_size", fd, 90_000) == "success"
    assert guest.write(fd, b"x") == 1
    guest.iovecs(1)
    assert guest.call("fd_pwrite", fd, 1024, 1, 1 << 50, RESULT) == "nospc"
    assert guest.call("fd_pwrite", fd, 1024, 1, (1 << 63) - 1, RESULT) in ("fbig", "nospc")
    names = 0
    while guest.call("path_create_directory", PREOPEN, f"d{names}") == "success":
        names += 1
    assert 10 < names < 100
    assert guest.call("path_symlink", "x" * 2000, PREOPEN, "link") == "nospc"
    assert guest.call("path_link", PREOPEN, 0, "f", PREOPEN, "n" * 200) == "nospc"
    assert guest.call("path_unlink_file", PREOPEN, "f") == "success"
    assert guest.call("path_create_directory", PREOPEN, "more") == "nospc"  # the descriptor still holds the contents
    assert guest.call("fd_close", fd) == "success"
    assert guest.call("path_create_directory", PREOPEN, "more") == "success"


def test_hard_links_are_charged() -> None:
    guest = guest_of(MemoryDirectory({"f": b""}, max_size=10_000))
    made = 0
    while guest.call("path_link", PREOPEN, 0, "f", PREOPEN, str(made)) == "success":
        made += 1
    assert made < 100


@pytest.mark.parametrize("path", ["..", "../x", "sub/../..", "sub/../../etc", "/etc", "up", "absolute", "sub/up/.."])
def test_nothing_above_a_descriptor_can_be_reached(path: str) -> None:
    directory = MemoryDirectory({"secret": b"secret", "inner": TREE})
    context = WasiContext()
    context.preopen(directory._open(b"/", 3, 3))
    guest = DirectGuest(context=context)
    fd = guest.open_or_fail("inner", oflags=2)
    assert guest.open(path, directory=fd) in ("perm", "noent", "notdir")
    assert guest.stat(f"{path}/../secret", directory=fd) in ("perm", "noent", "notdir")


def test_permissions() -> None:
    directory = MemoryDirectory(TREE)
    guest = guest_of(directory, perms=1)
    assert guest.open("f", rights=66) == "perm"
    assert guest.open("new", oflags=1) == "perm"
    assert guest.call("path_unlink_file", PREOPEN, "f") == "perm"
    assert guest.call("path_rename", PREOPEN, "f", PREOPEN, "h") == "perm"
    fd = guest.open_or_fail("f")
    assert guest.call("fd_filestat_set_size", fd, 0) == "perm"
    assert guest.read(fd) == b"hello world"


def test_between_file_systems(tmp_path: Path) -> None:
    """EXDEV, upon which programs copy."""
    guest = guest_of(MemoryDirectory(TREE))
    guest.context.preopen(MemoryDirectory({})._open(b"/other", 3, 3))
    assert guest.call("path_rename", PREOPEN, "f", PREOPEN + 1, "f") == "xdev"
    assert guest.call("path_link", PREOPEN, 0, "f", PREOPEN + 1, "f") == "xdev"


def test_a_directory_cannot_become_its_own_child() -> None:
    directory = MemoryDirectory({"a": {"b": {"c": {}}}})
    guest = guest_of(directory)
    inner = guest.open_or_fail("a/b", oflags=2)
    assert guest.call("path_rename", PREOPEN, "a", inner, "x") == "inval"
    assert guest.call("path_rename", PREOPEN, "a/b/c", PREOPEN, "a") == "notempty"
    assert guest.call("path_rename", PREOPEN, "a/b", PREOPEN, "b") == "success"
    assert guest.call("path_rename", PREOPEN, "a", inner, "x") == "success"
    assert directory.to_dict() == {"b": {"c": {}, "x": {}}}


def test_a_removed_directory_takes_nothing() -> None:
    guest = guest_of(MemoryDirectory({"d": {}}))
    fd = guest.open_or_fail("d", oflags=2)
    assert guest.call("path_remove_directory", PREOPEN, "d") == "success"
    assert guest.call("path_create_directory", fd, "x") == "noent"
    assert guest.open("x", oflags=1, directory=fd) == "noent"


# --- Zip files


def archive() -> zipfile.ZipFile:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("a.txt", "text" * 1000)
        writer.writestr("d/e/f.bin", bytes(range(256)))
        writer.writestr("empty/", "")
        writer.writestr("../escape", "x")
        writer.writestr("/absolute", "x")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        writer.writestr(link, "d/e/f.bin")
    return zipfile.ZipFile(file)


def test_zip_file() -> None:
    guest = guest_of(wasmforge.ZipDirectory(archive()))
    names = guest.listdir()
    assert not isinstance(names, str)
    assert sorted(name for name, _ in names) == [".", "..", "a.txt", "absolute", "d", "empty", "link"]
    assert guest.read(guest.open_or_fail("link")) == bytes(range(256))
    fd = guest.open_or_fail("a.txt")
    assert guest.call("fd_seek", fd, 3993, 0, RESULT) == "success"
    assert guest.read(fd) == b"exttext"
    status = guest.stat("a.txt")
    assert not isinstance(status, str)
    assert status["size"] == 4000
    assert guest.open("a.txt", rights=66) == "perm"
    assert guest.open("new", oflags=1) == "perm"
    assert guest.call("path_unlink_file", PREOPEN, "a.txt") == "perm"


def test_a_damaged_zip_file_is_an_errno() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("a", bytes(10000) + b"x" * 3000)
    data = bytearray(file.getvalue())
    data[40:50] = b"\xff" * 10
    guest = guest_of(wasmforge.ZipDirectory(io.BytesIO(bytes(data))))
    fd = guest.open("a")
    assert fd == "io" or guest.read(int(fd)) == "io"
    with pytest.raises(WasmtimeError, match="not a zip file"):
        wasmforge.ZipDirectory(io.BytesIO(b"nonsense"))


# --- fsspec


def test_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec", reason="pip install wasmforge[fsspec]")
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/wf/a", b"contents")
    fs.pipe_file("/wf/d/b", b"b")
    fs.pipe_file("/outside", b"secret")
    try:
        guest = guest_of(wasmforge.FsspecDirectory(fs, "/wf"))
        assert guest.read(guest.open_or_fail("a")) == b"contents"
        names = guest.listdir()
        assert not isinstance(names, str)
        assert sorted(name for name, _ in names) == [".", "..", "a", "d"]
        fd = guest.open_or_fail("d/new*", oflags=5, rights=66)
        guest.write(fd, b"written")
        assert guest.call("fd_sync", fd) == "success"
        assert fs.cat_file("/wf/d/new*") == b"written"
        assert guest.write(fd, b" more") == 5
        assert guest.call("fd_close", fd) == "success"
        assert fs.cat_file("/wf/d/new*") == b"written more"
        assert guest.call("path_rename", PREOPEN, "d/new*", PREOPEN, "moved") == "success"
        assert fs.cat_file("/wf/moved") == b"written more"
        assert not fs.exists("/wf/d/new*")
        assert guest.call("path_create_directory", PREOPEN, "e") == "success"
        assert fs.isdir("/wf/e")
        assert guest.call("path_rename", PREOPEN, "d", PREOPEN, "e") == "xdev"
        assert guest.call("path_remove_directory", PREOPEN, "e") == "success"
        assert not fs.exists("/wf/e")
        # A name is a name: in a pattern it would remove everything.
        fs.pipe_file("/wf/d/*", b"")
        again = guest_of(wasmforge.FsspecDirectory(fs, "/wf"))
        assert again.call("path_unlink_file", PREOPEN, "d/*") == "success"
        assert fs.cat_file("/wf/d/b") == b"b"
        assert again.open("../outside") == "perm"
        assert guest_of(wasmforge.FsspecDirectory(fs, "/wf", read_only=True)).open("a", rights=66) == "perm"
    finally:
        fs.rm("/wf", recursive=True)
        fs.rm_file("/outside")


class _Broken:
    """A file system that fails in every way that libraries know."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
        return [{"name": "x/a", "type": "file", "size": 3}]

    def cat_file(self, path: str) -> bytes:
        raise self.error


@pytest.mark.parametrize(
    ("error", "errno"),
    [
        (FileNotFoundError("x"), "noent"),
        (PermissionError("x"), "perm"),
        (OSError("x"), "io"),
        (ValueError("x"), "io"),
        (NotImplementedError(), "notsup"),
        (OSError(28, "x"), "nospc"),
    ],
)
def test_errors_of_a_file_system(error: Exception, errno: str) -> None:
    guest = guest_of(wasmforge.FsspecDirectory(_Broken(error), "x"))
    assert guest.read(guest.open_or_fail("a")) == errno
