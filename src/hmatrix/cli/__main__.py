"""``python -m hmatrix.cli``."""

import sys

from hmatrix.cli import main

sys.exit(main())
