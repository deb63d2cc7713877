"""Exercises: build a network by hand, break it, see why a packet does not arrive.

A lab is a folder: `lab.yaml` (steps and their checks), `text.md` (why, what to do, what
happened), `solution.sh`. It runs in a sandbox of its own, which needs no root, on a topology
of `netplug.fixtures`. Format in docs/labs-for-teachers.md; the shipped ones are in `course/`.
"""
