"""What a file system that lives in Python is made of: files, directories and symbolic links, and the `Volume` that they
belong to. `memory_directory.py`, `zip_directory.py` and `remote_directory.py` build them, `tree.py` shows them to a
guest.

Threat: the contents of these files are memory of the host, and a guest writes them. So every byte and every name is
charged to the volume before it exists; beyond the volume's limit the guest gets ENOSPC. A hole counts as if it were
written, since it is.
"""

from __future__ import annotations

import time

from wasmforge.wasi.errno import FBIG, NOSPC, WasiError

TYPE_CHECKING = False  # typing is not imported at run time: it would cost a command line 4 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = ["DEFAULT_CAPACITY", "DirectoryNode", "FileNode", "LinkNode", "Node", "Volume"]

DEFAULT_CAPACITY: Final = 256 << 20
"""Bytes that a guest may add to a volume unless the embedder says otherwise."""

NODE_COST: Final = 384
NAME_COST: Final = 128
"""Bytes charged for a node besides its contents, and for a name besides its length: about what the objects take."""


class Volume:
    """One file system: the room that is left in it, its clock, and the numbers of its nodes.

    Args:
        capacity: bytes that may be added to what the embedder put in.
        now: the time in nanoseconds since the epoch, for the times of files. The context replaces it by its own clock,
            so that runs with a fixed clock repeat exactly.
    """

    __slots__ = ("_inodes", "capacity", "device", "now", "used")

    def __init__(self, capacity: int = DEFAULT_CAPACITY, now: Callable[[], int] = time.time_ns) -> None:
        self.capacity = capacity
        self.used = 0
        self.now = now
        self.device = 1
        self._inodes = 0

    def next_inode(self) -> int:
        self._inodes += 1
        return self._inodes

    def charge(self, size: int) -> None:
        """Takes `size` bytes (gives them back when negative). Raises NOSPC when they are not left."""
        if size > 0 and self.used + size > self.capacity:
            raise WasiError(NOSPC)
        self.used += size


class Node:
    """A file, directory or link. `links` counts its names, `opens` the descriptors that hold it."""

    __slots__ = ("access_time", "change_time", "inode", "links", "modification_time", "opens", "volume")

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.inode = volume.next_inode()
        self.links = 0
        self.opens = 0
        self.access_time = self.modification_time = self.change_time = volume.now()

    @property
    def size(self) -> int:
        return 0

    def touch(self) -> None:
        """The contents changed."""
        self.modification_time = self.change_time = self.volume.now()

    def unlinked(self) -> None:
        """A name of it is gone."""
        self.links -= 1
        self.change_time = self.volume.now()
        self._release_if_unused()

    def opened(self) -> None:
        """A descriptor holds it now."""
        self.opens += 1

    def closed(self) -> None:
        """A descriptor lets it go."""
        self.opens -= 1
        self._release_if_unused()

    def _release_if_unused(self) -> None:
        if self.links <= 0 and self.opens <= 0:
            self.volume.charge(-self._cost())

    def _cost(self) -> int:
        return NODE_COST


class FileNode(Node):
    """A file. Subclasses fetch the contents when they are first wanted, and put them somewhere when they changed."""

    __slots__ = ("_data",)

    def __init__(self, volume: Volume, data: bytes | bytearray | None = b"") -> None:
        super().__init__(volume)
        self._data = None if data is None else bytearray(data)

    @property
    def data(self) -> bytearray:
        """The contents. Changed only through `write` and `resize`."""
        if self._data is None:
            self._data = bytearray(self._fetch())
        return self._data

    def _fetch(self) -> bytes:
        """The contents of a file made without any."""
        return b""

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, buffers: list[memoryview], offset: int) -> int:
        """Fills the buffers from `offset` on; the number of bytes read, 0 at the end."""
        total = 0
        with memoryview(self.data) as data:
            for buffer in buffers:
                part = data[offset : offset + len(buffer)]
                count = len(part)
                buffer[:count] = part
                total += count
                offset += count
                if count < len(buffer):
                    break
        self.access_time = self.volume.now()
        return total

    def write(self, buffers: list[memoryview], offset: int) -> int:
        """Writes the buffers from `offset` on, with zeros in between if the file ends before."""
        total = sum(map(len, buffers))
        if not total:
            return 0
        self._grow(offset + total)
        data = self.data
        for buffer in buffers:
            data[offset : offset + len(buffer)] = buffer
            offset += len(buffer)
        self.touch()
        return total

    def resize(self, size: int) -> None:
        """Cuts the file, or fills it up with zeros."""
        data = self.data
        if size < len(data):
            self.volume.charge(size - len(data))
            del data[size:]
        else:
            self._grow(size)
        self.touch()

    def _grow(self, size: int) -> None:
        data = self.data
        more = size - len(data)
        if more > 0:
            if size > 1 << 62:
                raise WasiError(FBIG)
            self.volume.charge(more)
            data.extend(bytes(more))

    def flush(self) -> None:
        """Puts the contents where they belong, if they changed."""

    def _cost(self) -> int:
        return NODE_COST + (0 if self._data is None else len(self._data))


class LinkNode(Node):
    """A symbolic link."""

    __slots__ = ("target",)

    def __init__(self, volume: Volume, target: bytes) -> None:
        super().__init__(volume)
        self.target = target

    @property
    def size(self) -> int:
        return len(self.target)

    def _cost(self) -> int:
        return NODE_COST + len(self.target)


class DirectoryNode(Node):
    """A directory: names to nodes, in the order in which they were made.

    Subclasses override the operations that have to happen elsewhere too. What they do there comes first: if it fails,
    nothing has changed here.
    """

    __slots__ = ("_children", "parent", "removed")

    def __init__(self, volume: Volume, parent: DirectoryNode | None = None) -> None:
        super().__init__(volume)
        self._children: dict[bytes, Node] | None = {}
        self.parent = parent
        self.removed = False

    @property
    def children(self) -> dict[bytes, Node]:
        """Changed only through the operations below."""
        if self._children is None:
            self._children = {}
            self._list()
        return self._children

    def _list(self) -> None:
        """Fills `_children` of a directory whose names have not been asked for yet."""

    def put(self, name: bytes, node: Node) -> None:
        """Enters a name for a node. The names that an embedder gives come in here without being charged."""
        self.children[name] = node
        node.links += 1
        if isinstance(node, DirectoryNode):
            node.parent = self

    # --- What a guest does. Names are single components; that they are free, or exist, has been checked.
    def create_file(self, name: bytes) -> FileNode:
        self._charge(name)
        node = self._new_file(name)
        self.put(name, node)
        self.touch()
        return node

    def create_directory(self, name: bytes) -> None:
        self._charge(name)
        self.put(name, self._new_directory(name))
        self.touch()

    def create_link(self, name: bytes, target: bytes) -> None:
        self._charge(name, len(target))
        self.put(name, LinkNode(self.volume, target))
        self.touch()

    def add_name(self, name: bytes, node: Node) -> None:
        """Another name for a file."""
        self.volume.charge(NAME_COST + len(name))
        self.put(name, node)
        node.change_time = self.volume.now()
        self.touch()

    def remove(self, name: bytes) -> None:
        node = self.children.pop(name)
        self.volume.charge(-NAME_COST - len(name))
        if isinstance(node, DirectoryNode):
            node.removed = True
        node.unlinked()
        self.touch()

    def move(self, name: bytes, target: DirectoryNode, target_name: bytes) -> None:
        """Gives a node another name, in this or another directory; what had that name is gone."""
        self.volume.charge(len(target_name) - len(name))
        if target_name in target.children:
            target.remove(target_name)
        node = self.children.pop(name)
        node.links -= 1
        target.put(target_name, node)
        node.change_time = self.volume.now()
        self.touch()
        target.touch()

    def _charge(self, name: bytes, more: int = 0) -> None:
        self.volume.charge(NODE_COST + NAME_COST + len(name) + more)

    def _new_file(self, name: bytes) -> FileNode:
        return FileNode(self.volume)

    def _new_directory(self, name: bytes) -> DirectoryNode:
        return DirectoryNode(self.volume, self)
