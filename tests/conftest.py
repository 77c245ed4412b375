"""What the tests compile is kept in .cache/test-images, so that repeated runs do not compile it again: the key of the
cache holds the compiler's sources. Tests of compiling itself call the compilers, or switch the cache off."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("WASMFORGE_CACHE", str(Path(__file__).resolve().parent.parent / ".cache" / "test-images"))
