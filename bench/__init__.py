"""Side by side with the peers, as ratios: `./run bench`, `python -m bench --help`.

A case pits contenders against each other; each of them measures its own operations, in turn with
the others, in a network namespace of its own. Cases are modules of bench/cases.
"""
