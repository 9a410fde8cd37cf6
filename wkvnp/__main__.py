"""``python -m wkvnp`` is the command ``wkvnp``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
