"""Directories and files that live in Python (`nodes.py`) as descriptors of the guest, with the answers that Linux gives
for directories of the host. `tests/wasi/test_tree.py` compares both on a catalogue of paths and operations.

Threat: nothing of the host can be reached from here whatever the path; but a guest must not climb above the directory
that a descriptor holds either, since an embedder may have given only a part of a tree. So `..` at the start and
absolute paths and links are refused as in `beneath.py`, and links are followed 40 times at most.
"""

from __future__ import annotations

from wasmforge.wasi import abi
from wasmforge.wasi.beneath import split_path
from wasmforge.wasi.descriptors import TIME_NOW, Descriptor, FileStatus, Times
from wasmforge.wasi.errno import (
    BADF,
    BUSY,
    EXIST,
    INVAL,
    ISDIR,
    LOOP,
    NAMETOOLONG,
    NOENT,
    NOTDIR,
    NOTEMPTY,
    PERM,
    XDEV,
    WasiError,
)
from wasmforge.wasi.files import MAX_OFFSET, READ, WRITE, Directory, File
from wasmforge.wasi.nodes import DirectoryNode, FileNode, LinkNode, Node

TYPE_CHECKING = False  # typing is not imported at run time: it would cost a command line 4 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from wasmforge.wasi.context import WasiContext

__all__ = ["TreeDirectory", "TreeFile"]

MAX_NAME: Final = 255
MAX_LINKS: Final = 40


def _file_type(node: Node) -> int:
    if isinstance(node, DirectoryNode):
        return abi.FILETYPE_DIRECTORY
    return abi.FILETYPE_SYMBOLIC_LINK if isinstance(node, LinkNode) else abi.FILETYPE_REGULAR_FILE


def _status(node: Node) -> FileStatus:
    return FileStatus(
        type=_file_type(node),
        device=node.volume.device,
        inode=node.inode,
        links=node.links,
        size=node.size,
        times=(node.access_time, node.modification_time, node.change_time),
    )


def _set_times(node: Node, times: Times) -> None:
    now = node.volume.now()
    access, modification = times
    if access is not None:
        node.access_time = now if access == TIME_NOW else access
    if modification is not None:
        node.modification_time = now if modification == TIME_NOW else modification
    node.change_time = now


# --- Paths -----------------------------------------------------------------------------------------------------


class _Place:
    """Where a path leads: the directory and the name in it, and what is there, if anything. A path that ends in ".",
    ".." or a slash leads to a directory without such a name (`name` is empty)."""

    __slots__ = ("name", "node", "parent")

    def __init__(self, parent: DirectoryNode, name: bytes, node: Node | None) -> None:
        self.parent = parent
        self.name = name
        self.node = node


def _components(path: bytes) -> list[bytes]:
    """The components of `path`, last first. A trailing slash asks for a directory, as "." does."""
    components = [part for part in path.split(b"/") if part]
    if path.endswith(b"/"):
        components.append(b".")
    components.reverse()
    return components


def _find(start: DirectoryNode, path: bytes, follow: bool) -> _Place:
    """Resolves `path` from `start`, which it cannot leave. The last component may be missing.

    Raises WasiError: PERM when the path leads out, NOENT, NOTDIR, LOOP, NAMETOOLONG.
    """
    if not path:
        raise WasiError(NOENT)
    if path.startswith(b"/"):
        raise WasiError(PERM)
    passed = [start]
    pending = _components(path)
    links = 0
    while pending:
        name = pending.pop()
        here = passed[-1]
        if name == b".":
            continue
        if name == b"..":
            if len(passed) == 1:
                raise WasiError(PERM)
            passed.pop()
            continue
        if len(name) > MAX_NAME:
            raise WasiError(NAMETOOLONG)
        node = here.children.get(name)
        if node is None:
            if not pending:
                return _Place(here, name, None)
            if pending == [b"."]:
                return _Place(here, b"", None)
            raise WasiError(NOENT)
        if isinstance(node, LinkNode):
            if not pending and not follow:
                return _Place(here, name, node)
            links += 1
            if links > MAX_LINKS:
                raise WasiError(LOOP)
            if node.target.startswith(b"/"):
                raise WasiError(PERM)
            pending.extend(_components(node.target))
        elif isinstance(node, DirectoryNode):
            if not pending:
                return _Place(here, name, node)
            passed.append(node)
        elif pending:
            raise WasiError(NOTDIR)
        else:
            return _Place(here, name, node)
    return _Place(passed[-1], b"", passed[-1])


def _existing(start: DirectoryNode, path: bytes, follow: bool) -> Node:
    node = _find(start, path, follow).node
    if node is None:
        raise WasiError(NOENT)
    return node


class _Parent:
    """The directory that holds a path's last component, and that component, for operations that change a name."""

    __slots__ = ("directory", "name", "slash")

    def __init__(self, start: DirectoryNode, path: bytes, dots: int) -> None:
        """`dots`: the errno for a path that ends in "." or ".."."""
        head, self.name, self.slash = split_path(path)
        if self.name in (b".", b".."):
            _directory(_existing(start, path, follow=True))
            raise WasiError(dots)
        self.directory = _directory(_existing(start, head, follow=True)) if head else start
        if len(self.name) > MAX_NAME:
            raise WasiError(NAMETOOLONG)

    @property
    def node(self) -> Node | None:
        return self.directory.children.get(self.name)

    def existing(self) -> Node:
        node = self.node
        if node is None:
            raise WasiError(NOENT)
        return node

    def need_free(self) -> None:
        if self.node is not None:
            raise WasiError(EXIST)
        if self.directory.removed:
            raise WasiError(NOENT)

    def refuse_slash(self) -> None:
        """Links are not directories, so their new names end in no slash."""
        if self.slash:
            node = self.existing()
            raise WasiError(NOTDIR if isinstance(node, FileNode) else EXIST)


def _directory(node: Node) -> DirectoryNode:
    if not isinstance(node, DirectoryNode):
        raise WasiError(NOTDIR)
    return node


def _is_beneath(node: DirectoryNode, above: Node) -> bool:
    """Whether `node` is `above` or lies beneath it."""
    here: DirectoryNode | None = node
    while here is not None:
        if here is above:
            return True
        here = here.parent
    return False


# --- Files -----------------------------------------------------------------------------------------------------


class TreeFile(File):
    """An open file of a tree."""

    __slots__ = ("_node", "_position")

    file_type = abi.FILETYPE_REGULAR_FILE

    def __init__(self, node: FileNode, *, readable: bool, writable: bool, may_write: bool, flags: int) -> None:
        super().__init__(readable=readable, writable=writable, may_write=may_write, flags=flags)
        self._node: FileNode | None = None
        node.opened()
        self._node = node
        self._position = 0

    @property
    def node(self) -> FileNode:
        if self._node is None:
            raise WasiError(BADF)
        return self._node

    def read(self, buffers: list[memoryview]) -> int:
        if not self._readable:
            raise WasiError(BADF)
        count = self.node.read(buffers, self._position)
        self._position += count
        return count

    def write(self, buffers: list[memoryview]) -> int:
        if not self._writable:
            raise WasiError(BADF)
        node = self.node
        start = node.size if self._flags & abi.FDFLAGS_APPEND else self._position
        count = node.write(buffers, start)
        self._position = start + count
        return count

    def pread(self, buffers: list[memoryview], offset: int) -> int:
        if offset > MAX_OFFSET:
            raise WasiError(INVAL)
        if not self._readable:
            raise WasiError(BADF)
        return self.node.read(buffers, offset)

    def pwrite(self, buffers: list[memoryview], offset: int) -> int:
        if offset > MAX_OFFSET:
            raise WasiError(INVAL)
        if not self._writable:
            raise WasiError(BADF)
        # As Linux does: what is opened to append, appends.
        return self.node.write(buffers, self.node.size if self._flags & abi.FDFLAGS_APPEND else offset)

    def seek(self, offset: int, whence: int) -> int:
        base = (0, self._position, self.node.size)[whence]
        position = base + offset
        if not 0 <= position <= MAX_OFFSET:
            raise WasiError(INVAL)
        self._position = position
        return position

    def flush(self, data_only: bool) -> None:
        self.node.flush()

    def advise(self, offset: int, length: int, advice: int) -> None:
        if offset > MAX_OFFSET or length > MAX_OFFSET:
            raise WasiError(INVAL)

    def set_flags(self, flags: int) -> None:
        if flags & ~(abi.FDFLAGS_APPEND | abi.FDFLAGS_NONBLOCK):
            raise WasiError(INVAL)
        self._flags = flags

    def set_size(self, size: int) -> None:
        if not self._may_write:
            raise WasiError(PERM)
        if size > MAX_OFFSET or not self._writable:
            raise WasiError(INVAL)
        self.node.resize(size)

    def set_times(self, times: Times) -> None:
        if not self._may_write:
            raise WasiError(PERM)
        _set_times(self.node, times)

    def status(self) -> FileStatus:
        return _status(self.node)

    def poll_target(self, write: bool) -> int | None:
        return None

    def close(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            try:
                node.flush()
            finally:
                node.closed()

    def __del__(self) -> None:
        # What could not be flushed has nobody left to be told; a guest that wants to know closes the file.
        node, self._node = self._node, None
        if node is not None:
            node.closed()


# --- Directories -----------------------------------------------------------------------------------------------


class TreeDirectory(Directory):
    """An open directory of a tree: preopened, or opened beneath one."""

    __slots__ = ("node",)

    def __init__(self, node: DirectoryNode, dir_perms: int, file_perms: int, preopen_name: bytes | None = None) -> None:
        self.node = node
        super().__init__(dir_perms, file_perms, preopen_name)

    def attach(self, context: WasiContext, number: int) -> None:
        # The times of files come from the guest's clock, and the numbers of devices are the same in every run.
        volume = self.node.volume
        volume.now = context.clocks.realtime
        volume.device = number

    def set_times(self, times: Times) -> None:
        self._need(WRITE)
        _set_times(self.node, times)

    def status(self) -> FileStatus:
        return _status(self.node)

    def _list(self) -> Iterator[tuple[int, int, int, bytes]]:
        inode = self.node.inode
        yield 1, inode, abi.FILETYPE_DIRECTORY, b"."
        yield 2, inode, abi.FILETYPE_DIRECTORY, b".."  # its own: what is above the start does not exist
        for next_cookie, (name, node) in enumerate(self.node.children.items(), 3):
            yield next_cookie, node.inode, _file_type(node), name

    def open_at(self, path: bytes, follow: bool, oflags: int, rights: int, fdflags: int) -> Descriptor:
        create = bool(oflags & abi.OFLAGS_CREAT)
        exclusive = create and bool(oflags & abi.OFLAGS_EXCL)
        read, write = self._access(oflags, rights, fdflags)
        if create and path.endswith(b"/"):  # no file has such a name, whatever is there
            _Parent(self.node, path, EXIST if exclusive else ISDIR)
            raise WasiError(ISDIR)
        place = _find(self.node, path, follow and not exclusive)
        node = place.node
        if not place.name and create:  # "." or ".."
            raise WasiError(EXIST if exclusive else ISDIR)
        if node is None:
            if not create or place.parent.removed:
                raise WasiError(NOENT)
            node = place.parent.create_file(place.name)
        elif exclusive:
            raise WasiError(EXIST)
        if isinstance(node, LinkNode):
            raise WasiError(LOOP)
        if isinstance(node, DirectoryNode):
            if write:
                raise WasiError(ISDIR)
            return TreeDirectory(node, self.dir_perms, self.file_perms)
        if oflags & abi.OFLAGS_DIRECTORY:
            raise WasiError(NOTDIR)
        assert isinstance(node, FileNode)
        opened = TreeFile(
            node,
            readable=read and bool(self.file_perms & READ),
            writable=write,
            may_write=bool(self.file_perms & WRITE),
            flags=fdflags,
        )
        if oflags & abi.OFLAGS_TRUNC and node.size:
            node.resize(0)
        return opened

    def create_directory_at(self, path: bytes) -> None:
        self._need(WRITE)
        parent = _Parent(self.node, path, EXIST)
        parent.need_free()
        parent.directory.create_directory(parent.name)

    def remove_directory_at(self, path: bytes) -> None:
        self._need(WRITE)
        parent = _Parent(self.node, path, INVAL)
        if _directory(parent.existing()).children:
            raise WasiError(NOTEMPTY)
        parent.directory.remove(parent.name)

    def unlink_file_at(self, path: bytes) -> None:
        self._need(WRITE)
        parent = _Parent(self.node, path, ISDIR)
        if isinstance(parent.existing(), DirectoryNode):
            raise WasiError(ISDIR)
        if parent.slash:
            raise WasiError(NOTDIR)
        parent.directory.remove(parent.name)

    def rename_at(self, path: bytes, target: Descriptor, target_path: bytes) -> None:
        other = self._need_two(target)
        source = _Parent(self.node, path, BUSY)
        goal = _Parent(other.node, target_path, BUSY)
        node = source.existing()
        if (source.slash or goal.slash) and not isinstance(node, DirectoryNode):
            raise WasiError(NOTDIR)
        if isinstance(node, DirectoryNode) and _is_beneath(goal.directory, node):
            raise WasiError(INVAL)
        replaced = goal.node
        if replaced is node:
            return
        if isinstance(replaced, DirectoryNode):
            if _is_beneath(source.directory, replaced):
                raise WasiError(NOTEMPTY)
            if not isinstance(node, DirectoryNode):
                raise WasiError(ISDIR)
            if replaced.children:
                raise WasiError(NOTEMPTY)
        elif replaced is not None and isinstance(node, DirectoryNode):
            raise WasiError(NOTDIR)
        if goal.directory.removed:
            raise WasiError(NOENT)
        source.directory.move(source.name, goal.directory, goal.name)

    def link_at(self, path: bytes, follow: bool, target: Descriptor, target_path: bytes) -> None:
        other = self._need_two(target)
        if follow:
            raise WasiError(INVAL)  # as for directories of the host
        source = _Parent(self.node, path, PERM)
        goal = _Parent(other.node, target_path, EXIST)
        node = source.node
        if source.slash and not isinstance(node, DirectoryNode):
            raise WasiError(NOTDIR if node is not None else NOENT)
        goal.refuse_slash()
        node = source.existing()
        goal.need_free()
        if isinstance(node, DirectoryNode):
            raise WasiError(PERM)
        goal.directory.add_name(goal.name, node)

    def symlink_at(self, contents: bytes, path: bytes) -> None:
        self._need(WRITE)
        if contents.startswith(b"/"):
            raise WasiError(PERM)  # it could never be followed here
        if not contents:
            raise WasiError(NOENT)
        parent = _Parent(self.node, path, EXIST)
        parent.refuse_slash()
        parent.need_free()
        parent.directory.create_link(parent.name, contents)

    def readlink_at(self, path: bytes) -> bytes:
        self._need(READ)
        node = _existing(self.node, path, follow=False)
        if not isinstance(node, LinkNode):
            raise WasiError(INVAL)
        if node.target.startswith(b"/"):
            raise WasiError(PERM)
        return node.target

    def status_at(self, path: bytes, follow: bool) -> FileStatus:
        self._need(READ)
        return _status(_existing(self.node, path, follow))

    def set_times_at(self, path: bytes, follow: bool, times: Times) -> None:
        self._need(WRITE)
        _set_times(_existing(self.node, path, follow), times)

    def _need_two(self, target: Descriptor) -> TreeDirectory:
        if target.file_type != abi.FILETYPE_DIRECTORY:
            raise WasiError(BADF)
        self._need(WRITE)
        if not isinstance(target, TreeDirectory) or target.node.volume is not self.node.volume:
            raise WasiError(XDEV)
        target._need(WRITE)
        return target
