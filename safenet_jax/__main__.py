"""`python -m safenet_jax` is the command `safenet`."""

import sys

from safenet_jax.console import main

if __name__ == '__main__':
  sys.exit(main.main())
