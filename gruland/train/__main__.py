"""``python -m gruland.train``: see :mod:`gruland.train.job`."""

from gruland.train.job import main

if __name__ == "__main__":
    main()
