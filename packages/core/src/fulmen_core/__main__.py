"""`python -m fulmen_core` is `fulmen`."""

import sys

from fulmen_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
