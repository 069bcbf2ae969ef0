"""Benchmarks: Forethought beside what one would use without it, on the same work, in one run on one machine. `python -m bench all`."""
