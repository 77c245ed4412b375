"""`MemoryDirectory`: a directory for guests that exists only in this process, made of a dict and read back as one.
`WasiConfig.preopen_dir` and `wasmforge.run` take it (or the dict) in the place of a host path.
"""

from __future__ import annotations

from wasmforge.syntax.errors import WasmtimeError
from wasmforge.wasi.nodes import DEFAULT_CAPACITY, DirectoryNode, FileNode, LinkNode, Node, Volume
from wasmforge.wasi.tree import TreeDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Contents = bytes | bytearray | memoryview | str | Mapping[str, "Contents"]
    Files = dict[str, "bytes | Symlink | Files"]

__all__ = ["MemoryDirectory", "Symlink"]


class Symlink(str):
    """A symbolic link in a dict of files: the path that it leads to."""

    __slots__ = ()


class MemoryDirectory:
    """A directory in memory.

        files = wasmforge.MemoryDirectory({"input.txt": b"text", "src": {"main.py": "print(1)"}})
        config.preopen_dir(files, "/work")
        ...
        files.to_dict()

    Several guests may use it one after the other; each sees what the ones before left.

    Args:
        files: names to contents: bytes, str (written as UTF-8), `Symlink`, or a dict for a directory. A name may be a
            path, whose directories are made.
        max_size: bytes that guests may add, names and bookkeeping included; beyond it they get ENOSPC.

    Raises:
        TypeError: a value is something else.
        WasmtimeError: a name is empty, "." or "..", too long, or used twice.
    """

    def __init__(self, files: Mapping[str, Contents] | None = None, *, max_size: int = DEFAULT_CAPACITY) -> None:
        self._volume = Volume(max_size)
        self._root = DirectoryNode(self._volume)
        _fill(self._root, {} if files is None else files)

    def to_dict(self) -> Files:
        """The present contents: names to bytes, `Symlink`s and dicts. A name that is no UTF-8 cannot occur."""
        return _dump(self._root)

    def _find(self, path: str) -> Node:
        node: Node = self._root
        for name in _parts(path):
            if not isinstance(node, DirectoryNode) or name not in node.children:
                raise KeyError(path)
            node = node.children[name]
        return node

    def __getitem__(self, path: str) -> bytes | Symlink | Files:
        """The contents of a file, or a directory as a dict. Raises KeyError. Links are not followed."""
        return _value(self._find(path))

    def __contains__(self, path: object) -> bool:
        try:
            self._find(str(path))
        except KeyError:
            return False
        return True

    def __repr__(self) -> str:
        return f"<MemoryDirectory: {', '.join(sorted(self.to_dict())) or 'empty'}>"

    def _open(self, name: bytes, dir_perms: int, file_perms: int) -> TreeDirectory:
        return TreeDirectory(self._root, dir_perms, file_perms, name)


def _parts(path: str) -> list[bytes]:
    return [part.encode() for part in path.split("/") if part]


def _fill(directory: DirectoryNode, files: Mapping[str, Contents]) -> None:
    for path, contents in files.items():
        if not isinstance(path, str):
            raise TypeError(f"names of files must be str, got {type(path).__name__}")
        names = _parts(path)
        if not names or any(name in (b".", b"..") or b"\0" in name or len(name) > 255 for name in names):
            raise WasmtimeError(f"not a name for a file: {path!r}")
        parent = directory
        for name in names[:-1]:
            parent = _subdirectory(parent, name, path)
        name = names[-1]
        inner: Any = contents
        if hasattr(inner, "items"):
            _fill(_subdirectory(parent, name, path), inner)
            continue
        if name in parent.children:
            raise WasmtimeError(f"two files have the name {path!r}")
        volume = directory.volume
        if isinstance(contents, Symlink):
            parent.put(name, LinkNode(volume, contents.encode()))
        elif isinstance(contents, str):
            parent.put(name, FileNode(volume, contents.encode()))
        elif isinstance(contents, (bytes, bytearray, memoryview)):
            parent.put(name, FileNode(volume, bytes(contents)))
        else:
            raise TypeError(
                f"contents of {path!r} must be bytes, str, Symlink or a dict, got {type(contents).__name__}"
            )


def _subdirectory(parent: DirectoryNode, name: bytes, path: str) -> DirectoryNode:
    node = parent.children.get(name)
    if node is None:
        node = DirectoryNode(parent.volume, parent)
        parent.put(name, node)
    if not isinstance(node, DirectoryNode):
        raise WasmtimeError(f"{path!r} names a file, and also a directory")
    return node


def _value(node: Node) -> bytes | Symlink | Files:
    if isinstance(node, DirectoryNode):
        return _dump(node)
    if isinstance(node, LinkNode):
        return Symlink(node.target.decode())
    assert isinstance(node, FileNode)
    return bytes(node.data)


def _dump(directory: DirectoryNode) -> Files:
    """THREAT: a guest may nest directories deeper than Python can recurse; so this keeps a list of what is left."""
    result: Files = {}
    pending = [(directory, result)]
    while pending:
        node, target = pending.pop()
        for name, child in node.children.items():
            if isinstance(child, DirectoryNode):
                inner: Files = {}
                target[name.decode()] = inner
                pending.append((child, inner))
            else:
                target[name.decode()] = _value(child)
    return result
