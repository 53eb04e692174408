"""`python -m openjepa` is the command `openjepa`."""

import sys

from openjepa.cli import main

if __name__ == "__main__":
    sys.exit(main())
