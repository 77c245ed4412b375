"""The sandbox holds: no path of a guest, no symbolic link in its directory and no race with another process reaches
anything outside a preopened directory; no number of a guest reaches a descriptor of the host.

Each attack runs with both ways of resolving paths: the kernel's (openat2), and ours for kernels without it. And each is
shown to be real: the same path, given to the host by name, does reach the secret.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.wasi.guests import BUFFER, PREOPEN, RESULT, DirectGuest
from wasmforge.wasi import abi, beneath
from wasmforge.wasi.host_files import HostDirectory

SECRET = b"the secret of the host"


@pytest.fixture(params=["openat2", "walk"])
def resolver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "openat2" and not beneath._kernel_resolves_beneath():
        pytest.skip("this kernel has no openat2, or a seccomp filter forbids it")
    monkeypatch.setattr(beneath, "_has_openat2", request.param == "openat2")
    return str(request.param)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host beside the guest's, with a secret in it."""
    place = tmp_path / "outside"
    (place / "directory").mkdir(parents=True)
    (place / "secret").write_bytes(SECRET)
    (place / "directory" / "secret").write_bytes(SECRET)
    return place


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    """The guest's directory, with links that an attacker prepared."""
    place = tmp_path / "guest"
    (place / "sub" / "deep").mkdir(parents=True)
    (place / "file").write_text("inside")
    links = {
        "absolute": outside / "secret",
        "absolute-directory": outside,
        "relative": "../outside/secret",
        "relative-directory": "../outside",
        "parent": "..",
        "sub/up": "../../outside/secret",
        "sub/deep/up": "../../../outside/secret",
        "sub/over": "../sub/../../outside/secret",
        "chain": "chain-2",
        "chain-2": "sub/chain-3",
        "sub/chain-3": "../relative",
        "through-parent": "parent/outside/secret",
        "root": "/",
        "proc-root": "/proc/self/root",
        "proc-cwd": "/proc/self/cwd",
        "self-file": "/proc/self/environ",
        "back": "../guest/../outside/secret",
        "home": "../guest/file",
    }
    for name, target in links.items():
        os.symlink(target, place / name)
    return place


@pytest.fixture
def guest(root: Path, resolver: str) -> Iterator[DirectGuest]:
    guest = DirectGuest(root)
    yield guest
    guest.close()


# Paths that lead to the secret of the host when they are resolved by name.
ESCAPES = (
    *("../outside/secret", "./../outside/secret", "sub/../../outside/secret", "sub/./..//../outside/secret"),
    *("sub/deep/../../../outside/secret", "../guest/../outside/secret", "sub/deep/../../..//outside/./secret"),
    *("absolute", "relative", "sub/up", "sub/deep/up", "sub/over", "chain", "chain-2", "sub/chain-3", "back"),
    *("absolute-directory/secret", "absolute-directory/directory/secret", "relative-directory/secret"),
    *("relative-directory/directory/../secret", "parent/outside/secret", "through-parent"),
    *("parent/guest/../outside/secret", "sub/../parent/outside/secret", "sub/deep/../../parent/outside/secret"),
)

REFUSALS = ("perm", "loop")  # EPERM for what leads out, ELOOP for a link that was not to be followed


def full_paths(root: Path, outside: Path) -> tuple[str, ...]:
    """Escapes whose text depends on where the directories are."""
    return (
        str(outside / "secret"),
        "//" + str(outside / "secret"),
        "root" + str(outside / "secret"),
        "proc-root" + str(outside / "secret"),
        "sub/../root" + str(outside / "secret"),
    )


def test_the_attacks_are_real(root: Path, outside: Path) -> None:
    """A runtime that gave the guest's path to the host by name would hand out the secret."""
    directory = os.open(root, os.O_RDONLY)
    try:
        for path in (*ESCAPES, *full_paths(root, outside)):
            descriptor = os.open(path, os.O_RDONLY, dir_fd=directory)
            assert os.read(descriptor, 100) == SECRET
            os.close(descriptor)
    finally:
        os.close(directory)


@pytest.mark.parametrize("follow", [True, False], ids=["following", "not following"])
def test_nothing_outside_can_be_opened(guest: DirectGuest, root: Path, outside: Path, follow: bool) -> None:
    for path in (*ESCAPES, *full_paths(root, outside)):
        for oflags, rights in ((0, 2), (0, 66), (1, 66), (8, 66), (2, 2)):
            result = guest.open(path, follow=follow, oflags=oflags, rights=rights)
            # O_DIRECTORY may complain about the kind of the link before anything else.
            assert result in (*REFUSALS, "notdir"), f"{path} with oflags {oflags}: {result}"
    assert (outside / "secret").read_bytes() == SECRET


def test_nothing_outside_can_be_seen(guest: DirectGuest, root: Path, outside: Path) -> None:
    """stat that follows tells nothing; stat that does not tells about the link in the guest's own directory at most."""
    for path in (*ESCAPES, *full_paths(root, outside)):
        assert guest.stat(path) == "perm", path
        status = guest.stat(path, follow=False)
        assert status == "perm" or (isinstance(status, dict) and status["type"] == abi.FILETYPE_SYMBOLIC_LINK), path


CHANGES: dict[str, Callable[[DirectGuest, str], str]] = {
    "path_create_directory": lambda g, p: g.call("path_create_directory", PREOPEN, p + "/new"),
    "path_unlink_file": lambda g, p: g.call("path_unlink_file", PREOPEN, p + "/secret"),
    "path_remove_directory": lambda g, p: g.call("path_remove_directory", PREOPEN, p + "/empty"),
    "path_symlink": lambda g, p: g.call("path_symlink", "x", PREOPEN, p + "/new"),
    "path_rename from": lambda g, p: g.call("path_rename", PREOPEN, p + "/secret", PREOPEN, "stolen"),
    "path_rename to": lambda g, p: g.call("path_rename", PREOPEN, "file", PREOPEN, p + "/secret"),
    "path_link from": lambda g, p: g.call("path_link", PREOPEN, 0, p + "/secret", PREOPEN, "stolen"),
    "path_link to": lambda g, p: g.call("path_link", PREOPEN, 0, "file", PREOPEN, p + "/new"),
    "path_filestat_set_times": lambda g, p: g.call("path_filestat_set_times", PREOPEN, 1, p + "/secret", 1, 1, 5),
    "path_readlink": lambda g, p: g.call("path_readlink", PREOPEN, p + "/link", BUFFER, 100, RESULT),
    "create a file": lambda g, p: str(g.open(p + "/new", oflags=1, rights=66)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", ["..", "relative-directory", "absolute-directory", "parent", "sub/../..", "root", "/"])
def test_nothing_outside_can_be_changed(guest: DirectGuest, outside: Path, change: str, way: str) -> None:
    (outside / "empty").mkdir()
    os.symlink("text", outside / "link")
    before = sorted(os.listdir(outside)), (outside / "secret").stat().st_mtime_ns
    suffix = "/outside" if way in ("..", "parent", "sub/../..") else str(outside) if way in ("root", "/") else ""
    assert CHANGES[change](guest, way + suffix) == "perm"
    assert (sorted(os.listdir(outside)), (outside / "secret").stat().st_mtime_ns) == before


@pytest.mark.parametrize("name", ["..", ".", "../", "./", "sub/..", "sub/.", "sub/deep/../..", "parent/.", ""])
def test_operations_on_dots_touch_nothing(guest: DirectGuest, root: Path, name: str) -> None:
    """A last component of "." or ".." never reaches a host call, which would act on the directory or on its parent."""
    before = sorted(os.listdir(root.parent)), sorted(os.listdir(root))
    for result in (
        guest.call("path_remove_directory", PREOPEN, name),
        guest.call("path_unlink_file", PREOPEN, name),
        guest.call("path_create_directory", PREOPEN, name),
        guest.call("path_rename", PREOPEN, name, PREOPEN, "renamed"),
        guest.call("path_rename", PREOPEN, "sub", PREOPEN, name),
        guest.call("path_link", PREOPEN, 0, name, PREOPEN, "linked"),
        guest.call("path_symlink", "file", PREOPEN, name),
    ):
        assert result in ("perm", "inval", "busy", "exist", "isdir", "noent", "notempty"), result
    assert (sorted(os.listdir(root.parent)), sorted(os.listdir(root))) == before


def test_dotdot_beneath_an_opened_directory_stops_at_it(guest: DirectGuest) -> None:
    """A descriptor of a subdirectory is no way up, not even to the preopened directory above it."""
    sub = guest.open_or_fail("sub", oflags=abi.OFLAGS_DIRECTORY)
    assert guest.open("..", directory=sub) == "perm"
    assert guest.open("../file", directory=sub) == "perm"
    assert guest.open("deep/../../file", directory=sub) == "perm"
    assert isinstance(guest.open("deep/..", directory=sub), int)


def test_a_directory_moved_outside_is_no_way_out(guest: DirectGuest, root: Path, outside: Path) -> None:
    """The host moves a directory that the guest holds open; ".." in it must not follow it to its new parent."""
    sub = guest.open_or_fail("sub", oflags=abi.OFLAGS_DIRECTORY)
    os.rename(root / "sub", outside / "moved")
    assert guest.open("../secret", directory=sub) == "perm"
    assert guest.open("deep/../../secret", directory=sub) == "perm"


def test_links_of_the_guest_lead_nowhere(guest: DirectGuest, root: Path, outside: Path) -> None:
    """Links with absolute contents cannot be made or read; relative ones are checked whenever they are followed."""
    assert guest.call("path_symlink", str(outside / "secret"), PREOPEN, "made") == "perm"
    assert guest.call("path_readlink", PREOPEN, "absolute", BUFFER, 100, RESULT) == "perm"
    assert guest.call("path_symlink", "../outside/secret", PREOPEN, "made") == "success"
    assert guest.open("made") == "perm"
    assert guest.open("made", oflags=abi.OFLAGS_CREAT, rights=66) == "perm"
    assert guest.call("path_symlink", "../outside/created", PREOPEN, "dangling") == "success"
    assert guest.open("dangling", oflags=abi.OFLAGS_CREAT, rights=66) == "perm"
    assert not (outside / "created").exists()


def test_hard_links_do_not_follow_links(guest: DirectGuest, root: Path) -> None:
    """A hard link to a symbolic link links the link; asking to follow it is refused (linkat would leave)."""
    assert guest.call("path_link", PREOPEN, 0, "relative", PREOPEN, "hard") == "success"
    assert (root / "hard").is_symlink()
    assert guest.open("hard") == "perm"
    assert guest.call("path_link", PREOPEN, 1, "relative", PREOPEN, "hard-2") == "inval"
    assert not os.path.lexists(root / "hard-2")


def test_magic_links_are_not_followed(guest: DirectGuest, root: Path, outside: Path) -> None:
    """/proc's links jump to what a process has open: also when /proc itself is beneath the preopened directory."""
    for path in ("proc-root", "proc-cwd", "self-file", "proc-root/etc", "root/proc/self/root"):
        assert guest.open(path) == "perm"
    descriptor = os.open(outside / "secret", os.O_RDONLY)
    try:
        proc = DirectGuest("/proc")
        for path in (f"self/fd/{descriptor}", "self/root", "self/cwd", "self/exe", f"self/fd/{descriptor}/x"):
            assert proc.open(path) in ("perm", "loop", "noent", "acces", "notdir"), path
        proc.close()
    finally:
        os.close(descriptor)


def test_links_that_stay_inside_work(guest: DirectGuest, root: Path) -> None:
    """The wall is where it should be: links, "..", and a path of many components are fine within the directory."""
    os.symlink("../file", root / "sub" / "to-file")
    os.symlink("sub", root / "to-sub")
    os.symlink("deep/..", root / "sub" / "round")
    for path in ("file", "sub/../file", "sub/to-file", "to-sub/to-file", "to-sub/deep/../to-file", "sub/round/to-file"):
        fd = guest.open_or_fail(path)
        assert guest.read(fd) == b"inside"
    assert guest.open_or_fail("./" * 500 + "file")


def test_endless_links_end(guest: DirectGuest, root: Path) -> None:
    os.symlink("b", root / "a")
    os.symlink("a", root / "b")
    os.symlink("self/x", root / "self")
    for i in range(60):
        os.symlink(f"long-{i + 1}", root / f"long-{i}")
    for path in ("a", "b", "self", "a/x", "long-0"):
        assert guest.open(path) == "loop", path


def test_the_directory_itself_may_be_reached_by_a_link(tmp_path: Path, root: Path, resolver: str) -> None:
    """The embedder's path is the embedder's business: only what comes after it is the guest's."""
    os.symlink(root, tmp_path / "way")
    guest = DirectGuest(tmp_path / "way")
    assert guest.read(guest.open_or_fail("file")) == b"inside"
    guest.close()


def test_no_number_reaches_a_descriptor_of_the_host(guest: DirectGuest, outside: Path) -> None:
    """The process holds files open, with inheritable descriptors too; a guest that tries all numbers finds none."""
    held = [os.open(outside / "secret", os.O_RDONLY) for _ in range(20)]
    for descriptor in held:
        os.set_inheritable(descriptor, True)
    try:
        for fd in (*range(4, 200), 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1):
            assert guest.read(fd) == "badf"
            assert guest.write(fd, b"x") == "badf"
            assert guest.call("fd_close", fd) == "badf"
            assert guest.call("fd_renumber", fd, PREOPEN) == "badf"
            assert guest.open("file", directory=fd) == "badf"
        for descriptor in held:
            assert os.read(descriptor, 100) == SECRET  # still open, at the start
    finally:
        for descriptor in held:
            os.close(descriptor)


def test_opened_files_are_not_inherited(guest: DirectGuest, root: Path) -> None:
    """Programs that the host starts meanwhile do not get the guest's files."""
    guest.open_or_fail("file")
    guest.open_or_fail("sub", oflags=abi.OFLAGS_DIRECTORY)
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:
            continue
        if target.startswith(str(root)):
            assert not os.get_inheritable(int(entry)), target


def test_names_end_at_nothing(guest: DirectGuest, outside: Path) -> None:
    """A NUL would cut the path that the host sees; bytes that are no UTF-8 are no name."""
    assert guest.open(b"file\0/../../outside/secret") == "inval"
    assert guest.open(b"../outside/secret\0") == "inval"
    assert guest.open(b"\0") == "inval"
    assert guest.open(b"file\xff") == "ilseq"
    assert guest.open(b"\xed\xa0\x80") == "ilseq"
    assert guest.open("") == "noent"
    assert guest.open("x" * 256) == "nametoolong"
    assert guest.open("x/" * 2047 + "x") == "noent"  # as long as a path may be
    assert guest.open("x/" * 2048) == "nametoolong"


# --- Permissions


def guest_with(root: Path, directory: int, files: int) -> DirectGuest:
    guest = DirectGuest()
    guest.context.preopen(HostDirectory.preopen(root, b"/guest", directory, files))
    return guest


def test_a_read_only_directory_cannot_be_changed(root: Path, resolver: str) -> None:
    guest = guest_with(root, 1, 1)
    before = sorted(os.listdir(root)), (root / "file").read_bytes(), (root / "file").stat().st_mtime_ns
    for oflags, rights in ((0, 64), (0, 66), (1, 2), (1, 66), (5, 66), (8, 2), (8, 66), (9, 66)):
        assert guest.open("file", oflags=oflags, rights=rights) == "perm"
        assert guest.open("new", oflags=oflags | 1, rights=rights) == "perm"
    for call in (
        ("path_create_directory", PREOPEN, "new"),
        ("path_remove_directory", PREOPEN, "sub/deep"),
        ("path_unlink_file", PREOPEN, "file"),
        ("path_rename", PREOPEN, "file", PREOPEN, "new"),
        ("path_link", PREOPEN, 0, "file", PREOPEN, "new"),
        ("path_symlink", "file", PREOPEN, "new"),
        ("path_filestat_set_times", PREOPEN, 0, "file", 1, 1, 5),
        ("fd_filestat_set_times", PREOPEN, 1, 1, 5),
    ):
        assert guest.call(*call) == "perm", call  # type: ignore[arg-type]
    fd = guest.open_or_fail("file")
    assert guest.read(fd) == b"inside"
    assert guest.write(fd, b"x") == "badf"
    assert guest.call("fd_filestat_set_size", fd, 0) == "perm"
    assert guest.call("fd_filestat_set_times", fd, 1, 1, 5) == "perm"
    assert guest.call("fd_allocate", fd, 0, 100) == "notsup"
    # The permissions travel to what is opened beneath.
    sub = guest.open_or_fail("sub", oflags=abi.OFLAGS_DIRECTORY)
    assert guest.call("path_create_directory", sub, "new") == "perm"
    assert guest.open("new", directory=sub, oflags=1, rights=66) == "perm"
    assert (sorted(os.listdir(root)), (root / "file").read_bytes(), (root / "file").stat().st_mtime_ns) == before
    guest.close()


def test_read_only_files_cannot_be_truncated(root: Path, resolver: str) -> None:
    """In a directory whose names may change. (Wasmtime 42 truncates here.)"""
    guest = guest_with(root, 3, 1)
    for oflags in (8, 9, 1):
        assert guest.open("file", oflags=oflags, rights=2) == "perm"
    assert (root / "file").read_text() == "inside"
    guest.close()


def test_write_only_permissions(root: Path, resolver: str) -> None:
    guest = guest_with(root, 2, 3)
    assert guest.open("file") == "perm"
    assert guest.listdir() == "perm"
    assert guest.stat("file") == "perm"
    assert guest.call("path_readlink", PREOPEN, "relative", BUFFER, 100, RESULT) == "perm"
    guest.close()
    guest = guest_with(root, 3, 2)
    assert guest.open("file") == "perm"
    fd = guest.open_or_fail("file", rights=64)
    assert guest.read(fd) == "badf"
    assert guest.write(fd, b"INS") == 3
    guest.close()


# --- Races

SWAPPER = """
import os, sys, time
root, outside, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
os.chdir(root)
end = time.monotonic() + seconds
print("ready", flush=True)
while time.monotonic() < end:
    # "swap" is a directory with the guest's own file, then a link to the directory outside, and back.
    os.rename("swap", "swap-directory"); os.symlink(outside, "swap")
    os.unlink("swap"); os.rename("swap-directory", "swap")
    os.rename("leaf", "leaf-file"); os.symlink(outside + "/secret", "leaf")
    os.unlink("leaf"); os.rename("leaf-file", "leaf")
"""


def test_links_swapped_in_a_race_lead_nowhere(root: Path, outside: Path, resolver: str) -> None:
    """Another process exchanges a directory and a file for links to the outside, again and again, while the guest
    opens, reads, creates, and stats through them. Between a check and a use there would be time for that."""
    (root / "swap").mkdir()
    (root / "swap" / "secret").write_text("inside")
    (root / "leaf").write_text("inside")
    seconds = 10.0  # 20 for both ways of resolving
    swapper = subprocess.Popen(
        [sys.executable, "-c", SWAPPER, str(root), str(outside), str(seconds)], stdout=subprocess.PIPE
    )
    guest = DirectGuest(root)
    inode_outside = (outside / "secret").stat()
    answers: dict[str, int] = {}
    try:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        end = time.monotonic() + seconds - 0.2
        while time.monotonic() < end:
            for path in ("swap/secret", "leaf", "sub/../swap/secret", "swap/../leaf"):
                fd = guest.open(path, rights=66)
                answers[str(fd)[:1] if isinstance(fd, int) else fd] = 1
                if isinstance(fd, int):
                    assert guest.read(fd) == b"inside", path
                    guest.call("fd_close", fd)
                status = guest.stat(path)
                if isinstance(status, dict):
                    assert status["size"] != inode_outside.st_size, path
            guest.open("swap/new", oflags=1, rights=66)
            guest.call("path_unlink_file", PREOPEN, "swap/new")
            guest.call("path_create_directory", PREOPEN, "swap/made")
            guest.call("path_remove_directory", PREOPEN, "swap/made")
            guest.call("path_filestat_set_times", PREOPEN, 1, "leaf", 1, 1, 5)
    finally:
        swapper.wait(timeout=30)
        swapper.stdout.close()  # type: ignore[union-attr]
        guest.close()
    assert sorted(os.listdir(outside)) == ["directory", "secret"]
    assert (outside / "secret").read_bytes() == SECRET
    assert (outside / "secret").stat().st_mtime_ns == inode_outside.st_mtime_ns
    assert "perm" in answers, "the race was never met: the swapper did not run beside the guest"


def test_endless_renames_do_not_fail_the_guest(guest: DirectGuest, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """openat2 gives up (EAGAIN) while directories are renamed; then the path is walked, behind the same wall."""
    monkeypatch.setattr(beneath, "_MAX_RACES", 0)
    assert guest.read(guest.open_or_fail("sub/../file")) == b"inside"
    assert guest.open("../outside/secret") == "perm"
    assert guest.open("relative") == "perm"


# --- Exhaustion


def test_a_guest_cannot_use_up_descriptors(guest: DirectGuest, root: Path) -> None:
    """It gets EMFILE while the host still can open files, and nothing leaks when it closes."""
    guest.context.descriptors.limit = 40
    opened = []
    while isinstance(fd := guest.open("file"), int):
        opened.append(fd)
    assert fd == "mfile"
    assert len(opened) == 36  # three streams and the directory
    assert guest.open("created", oflags=1, rights=66) == "mfile"
    assert not (root / "created").exists(), "refused before anything is made"
    for number in opened:
        assert guest.call("fd_close", number) == "success"
    assert guest.open("file") == PREOPEN + 1


def test_the_limit_leaves_descriptors_to_the_host() -> None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        pytest.skip("this process may open any number of files")
    assert DirectGuest().context.descriptors.limit <= max(soft // 2, 16)


def test_failed_calls_leave_no_descriptor_open(guest: DirectGuest, root: Path, outside: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in (*ESCAPES, *full_paths(root, outside), "nope", "file/x", "sub/nope/x", "", "a/b/c/d"):
        guest.open(path, oflags=2)
        guest.open(path, follow=False)
        guest.stat(path)
        for change in CHANGES.values():
            change(guest, path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_fifo_does_not_hold_up_stat(guest: DirectGuest, root: Path) -> None:
    """Only opening a FIFO waits for its other end; looking at it does not."""
    os.mkfifo(root / "fifo")
    done = threading.Event()

    def look() -> None:
        guest.stat("fifo")
        guest.call("path_filestat_set_times", PREOPEN, 1, "fifo", 1, 1, 5)
        guest.open("fifo", oflags=abi.OFLAGS_DIRECTORY)
        guest.open("fifo", fdflags=abi.FDFLAGS_NONBLOCK)
        done.set()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    assert done.wait(10)
