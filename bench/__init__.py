"""Side by side with the peers, as ratios: `./run bench`, `python -m bench --help`.

A case pits contenders against each other; each of them measures its own operations, in turn with
the others, in a network namespace of its own. Cases are modules of bench/cases.
"""

import sys
from pathlib import Path

# The peers are unpacked by the same code that unpacks the engines for the tests.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
