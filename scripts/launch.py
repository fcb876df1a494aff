"""Start syd-pool from this work tree under `python -I -S`: scripts/run and scripts/syd.

A file named on the command line is compiled at every start, so there is nothing here but the path.
"""

import sys

root = __file__.rpartition("/scripts/")[0]
sys.path.insert(0, root)
sys.path.append(f"{root}/.venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")

from syd_pool.cli.main import launch  # noqa: E402 the path comes first

launch(sys.argv[1:])
