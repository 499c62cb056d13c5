"""`python -m mixerkit` is the `mixer` command."""

import sys

from mixerkit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
