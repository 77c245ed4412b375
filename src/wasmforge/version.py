"""The version of the package, in the one place that every room may import."""

from typing import Final

VERSION: Final = "0.1.0"
