"""What wears a program down: kills at every boundary of every write, damaged files, malformed inputs, by the thousand.

A case runs in a forked child of one process that has everything imported. It is named, and can be repeated alone::

    PYTHONPATH=tests python -m soak                 all of it, as make soak does
    make soak SOAK="--kills 1000 --damage 10000 --malformed 10000 --seed 0"
    make soak SOAK="--case kills/training/17"
"""
