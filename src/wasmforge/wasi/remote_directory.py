"""`FsspecDirectory`: a directory of any fsspec file system (S3, HTTP, a dask worker's, ...) for guests. Needs the extra
`fsspec`, which this module does not import: it is handed a file system.

Names are listed when a guest first looks into a directory, contents fetched when a file is first read and put back when
it is synchronised or closed. So it is a copy that is written through, not a view: what others change meanwhile is not
seen.

Threat: some methods of fsspec treat `*`, `?` and `[` in paths as patterns, and a guest chooses names. Only methods that
take a path literally are called here: `ls`, `cat_file`, `pipe_file`, `mkdir`, `rmdir`, `rm_file`, `cp_file`.
"""

from __future__ import annotations

from wasmforge.wasi.errno import INVAL, IO, NOTSUP, XDEV, WasiError
from wasmforge.wasi.files import READ
from wasmforge.wasi.nodes import DEFAULT_CAPACITY, DirectoryNode, FileNode, Node, Volume
from wasmforge.wasi.tree import TreeDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["FsspecDirectory"]


class FsspecDirectory:
    """A directory of an fsspec file system.

        config.preopen_dir(wasmforge.FsspecDirectory(fsspec.filesystem("memory"), "/data"), "/data")

    Args:
        fs: the file system (an `fsspec.AbstractFileSystem` that is not asynchronous).
        path: the directory in it.
        max_size: bytes that guests may add while they use it; beyond it they get ENOSPC.
        read_only: whether guests may only read.
    """

    def __init__(self, fs: Any, path: str = "", *, max_size: int = DEFAULT_CAPACITY, read_only: bool = False) -> None:
        self._root = _RemoteDirectory(Volume(max_size), None, fs, path.rstrip("/"))
        self._read_only = read_only

    def _open(self, name: bytes, dir_perms: int, file_perms: int) -> TreeDirectory:
        allowed = READ if self._read_only else -1
        return TreeDirectory(self._root, dir_perms & allowed, file_perms & allowed, name)


def _asked(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the file system answers. Its errors become errno values; OSError passes, since its errno says more."""
    try:
        return function(*arguments, **options)
    except OSError as error:
        if error.errno is None:  # libraries raise FileNotFoundError(path)
            raise WasiError(_ERRNO.get(type(error), IO)) from error
        raise
    except NotImplementedError as error:
        raise WasiError(NOTSUP) from error
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise WasiError(IO) from error


def _errno_table() -> dict[type[OSError], int]:
    from wasmforge.wasi import errno

    return {
        FileNotFoundError: errno.NOENT,
        FileExistsError: errno.EXIST,
        NotADirectoryError: errno.NOTDIR,
        IsADirectoryError: errno.ISDIR,
        PermissionError: errno.PERM,
        TimeoutError: errno.IO,
    }


_ERRNO = _errno_table()


def _nanoseconds(value: Any) -> int | None:
    """The time in an entry, however the file system says it: seconds, or a datetime."""
    if isinstance(value, (int, float)):
        return int(value * 1_000_000_000)
    timestamp = getattr(value, "timestamp", None)
    return None if timestamp is None else int(timestamp() * 1_000_000_000)


class _RemoteDirectory(DirectoryNode):
    __slots__ = ("fs", "path")

    def __init__(self, volume: Volume, parent: DirectoryNode | None, fs: Any, path: str) -> None:
        super().__init__(volume, parent)
        self._children = None  # not listed yet
        self.fs = fs
        self.path = path

    def _list(self) -> None:
        assert self._children is not None
        children = self._children
        try:
            entries = _asked(self.fs.ls, self.path, detail=True)
        except BaseException:
            self._children = None
            raise
        for entry in entries:
            full = str(entry["name"]).rstrip("/")
            name = full.rpartition("/")[2].encode("utf-8", "surrogateescape")
            if not name or name in (b".", b"..") or len(name) > 255 or b"\0" in name or full == self.path:
                continue
            node: Node
            if entry.get("type") == "directory":
                node = _RemoteDirectory(self.volume, self, self.fs, full)
            else:
                node = _RemoteFile(self.volume, self.fs, full, int(entry.get("size") or 0))
            time = _nanoseconds(entry.get("mtime", entry.get("LastModified", entry.get("modified"))))
            if time is not None:
                node.access_time = node.modification_time = node.change_time = time
            children[name] = node
            node.links = 1

    def _path_of(self, name: bytes) -> str:
        try:
            return f"{self.path}/{name.decode()}"
        except UnicodeDecodeError:
            raise WasiError(INVAL) from None

    def _new_file(self, name: bytes) -> FileNode:
        path = self._path_of(name)
        _asked(self.fs.pipe_file, path, b"")
        node = _RemoteFile(self.volume, self.fs, path, 0)
        node._data = bytearray()
        return node

    def _new_directory(self, name: bytes) -> DirectoryNode:
        path = self._path_of(name)
        _asked(self.fs.mkdir, path, create_parents=False)
        node = _RemoteDirectory(self.volume, self, self.fs, path)
        node._children = {}
        return node

    def create_link(self, name: bytes, target: bytes) -> None:
        raise WasiError(NOTSUP)

    def add_name(self, name: bytes, node: Node) -> None:
        raise WasiError(NOTSUP)

    def remove(self, name: bytes) -> None:
        node = self.children[name]
        if isinstance(node, DirectoryNode):
            _asked(self.fs.rmdir, self._path_of(name))
        else:
            assert isinstance(node, _RemoteFile)
            _asked(self.fs.rm_file, node.path)
            node.dirty = False  # a descriptor that still holds it writes for nobody
            node.gone = True
        super().remove(name)

    def move(self, name: bytes, target: DirectoryNode, target_name: bytes) -> None:
        node = self.children[name]
        if not isinstance(node, _RemoteFile) or not isinstance(target, _RemoteDirectory):
            raise WasiError(XDEV)  # programs that move directories copy them then
        node.flush()
        path = target._path_of(target_name)
        _asked(self.fs.cp_file, node.path, path)
        _asked(self.fs.rm_file, node.path)
        replaced = target.children.get(target_name)
        if isinstance(replaced, _RemoteFile):
            replaced.dirty = False
            replaced.gone = True
            DirectoryNode.remove(target, target_name)  # the copy replaced it there
        node.path = path
        super().move(name, target, target_name)


class _RemoteFile(FileNode):
    __slots__ = ("_remote_size", "dirty", "fs", "gone", "path")

    def __init__(self, volume: Volume, fs: Any, path: str, size: int) -> None:
        super().__init__(volume, None)
        self.fs = fs
        self.path = path
        self._remote_size = size
        self.dirty = False
        self.gone = False

    @property
    def size(self) -> int:
        return self._remote_size if self._data is None else len(self._data)

    def _fetch(self) -> bytes:
        # Threat: fetched contents are memory of the host, and the guest decides what is fetched.
        self.volume.charge(self._remote_size)
        try:
            data = bytes(_asked(self.fs.cat_file, self.path))
            self.volume.charge(len(data) - self._remote_size)
        except BaseException:
            self.volume.charge(-self._remote_size)
            raise
        return data

    def touch(self) -> None:
        super().touch()
        self.dirty = True

    def resize(self, size: int) -> None:
        if size == 0 and self._data is None:
            self._data = bytearray()  # no need to fetch what is thrown away
            self.touch()
            return
        super().resize(size)

    def flush(self) -> None:
        if self.dirty and not self.gone:
            _asked(self.fs.pipe_file, self.path, bytes(self.data))
            self.dirty = False

    def closed(self) -> None:
        super().closed()
        if self.opens <= 0 and self._data is not None and not self.dirty and self.links > 0:
            self._remote_size = len(self._data)
            self.volume.charge(-len(self._data))
            self._data = None
