"""`python -m wasmforge`: the command line."""

import sys

from wasmforge.cli import main

sys.exit(main())
