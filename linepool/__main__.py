"""``python -m linepool`` is the command ``linepool``."""

import sys

from linepool.cli import main

sys.exit(main())
