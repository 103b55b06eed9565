"""Workers that die on a counted clock: nothing is lost, little is done twice, and the same seed tells the same."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.simulation import Cluster, simulate


def test_without_deaths_the_clock_is_that_of_a_plain_schedule():
    """4 workers, 8 tasks of two seconds each in two steps: two rounds after the start."""
    tally = simulate([(1.0, 1.0)] * 8, Cluster(4, deaths_per_minute=0, start=3))
    assert (tally.seconds, tally.useful, tally.lost, tally.deaths, tally.results) == (7, 16, 0, 0, 8)
    assert tally.efficiency(4) == pytest.approx(16 / 28)


def test_a_thousand_workers_that_die_lose_nothing_and_do_little_twice():
    """The expectation: a chunk of T seconds loses T/2 a death, and each worker dies once in 100 minutes."""
    chunks = np.random.default_rng(0).uniform(30, 90, 10_000)
    tally = simulate([(seconds,) for seconds in chunks.tolist()], Cluster())
    assert tally.results == 10_000
    assert tally.useful == pytest.approx(chunks.sum())
    assert tally.deaths == pytest.approx(tally.seconds / 60 * 10, rel=0.3)
    assert tally.lost / tally.useful == pytest.approx(
        0.01 / 60 * np.mean(chunks**2) / 2 / np.mean(chunks), rel=0.3
    )
    assert tally.twice < 0.05
    assert tally == simulate([(seconds,) for seconds in chunks.tolist()], Cluster())
    assert tally != simulate([(seconds,) for seconds in chunks.tolist()], Cluster(seed=1))


def test_steps_that_ended_are_kept_and_a_command_that_gave_up_goes_on():
    """A task of ten hours outlives no worker: only what is saved on the way brings it to its end."""
    steps = [(600.0,) * 60] * 20
    tally = simulate(steps, Cluster(20, start=10))
    assert tally.results == 20
    assert tally.useful == pytest.approx(20 * 36_000)
    assert tally.calls > 1
    assert tally.lost <= 600.0 * (tally.deaths + 20 * tally.calls)
