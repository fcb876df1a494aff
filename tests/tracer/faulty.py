"""syd-pool with one thing broken: `python -I -S faulty.py FAULT STATE -- words of the command line`.

FAULT names a function of faults.py, which patches the modules of this interpreter before the tracer, and
so every worker and monitor it forks, comes into being.  The production code knows nothing of it.
STATE is a file of 8-byte words, mapped shared: what the fault counts, and what the test tells it.
"""

import sys

root = __file__.rpartition("/tests/")[0]
sys.path[:0] = [root, root + "/tests/tracer"]
sys.path.append(f"{root}/.venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")

import faults  # noqa: E402 the path comes first

from syd_pool.cli.main import launch  # noqa: E402

name, state = sys.argv[1:3]
faults.apply(name, state)
launch(sys.argv[4:])
