"""Side by side with the reference plugins, as ratios: `./run bench`, `python -m bench --help`.

A case pits contenders against each other; each of them measures its own operations, in turn with
the others, in a network namespace of its own. Every case is a module of bench/cases.
"""
