"""Whether the optimising compiler is installed. `config` asks before it promises LLVM, without importing it: that takes
longer than a whole start from the cache.
"""

from __future__ import annotations

import sys
from _frozen_importlib_external import PathFinder  # what `importlib.machinery` offers, without its imports

__all__ = ["llvm_available"]


def llvm_available() -> bool:
    """Whether `import llvmlite` would find something."""
    if "llvmlite" in sys.modules:
        return sys.modules["llvmlite"] is not None
    return PathFinder.find_spec("llvmlite") is not None
