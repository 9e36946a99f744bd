"""``python -m hmatrix``: the command ``hmatrix``."""

import sys

from hmatrix.cli import main

sys.exit(main())
