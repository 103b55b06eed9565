"""Workers that die on a counted clock: nothing is lost, little is done twice, and the same seed tells the same."""

from __future__ import annotations

import json
from unittest import mock

import numpy as np
import pytest

from benchmarks import scaling
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


def test_the_page_is_drawn_from_what_was_measured(tmp_path):
    """Of made-up seconds: half the time is a speed-up of 2, the same time for twice the work an efficiency of 1."""
    seconds = {(1, 1): 10.0, (2, 1): 5.0, (2, 2): 10.0}
    commands = [
        {"what": what, "workers": workers, "work": work, "seconds": took}
        for what in ("sweep", "surface", "attack")
        for (workers, work), took in seconds.items()
    ]
    facts = {
        "date": "2026-01-01 00:00", "load": 0.0, "others": 0.5, "machine": {"processor": "any", "cores": 2},
        "commands": [{"what": "start", "workers": 1, "work": 0, "seconds": 3.0}, *commands],
        "epochs": {}, "cells": [100.0, 200.0], "surface": {"files": 19, "bytes": 30_000},
    }  # fmt: skip
    (tmp_path / "scaling.json").write_text(json.dumps(facts))
    (tmp_path / "scaling.md").write_text(f"before {scaling.BEGIN} old {scaling.END} after")
    with mock.patch.object(
        scaling, "workloads", lambda facts: [("surfaces", [(cell,) for cell in facts["cells"]] * 50)]
    ):
        scaling.main(["--output", str(tmp_path)])
    page = (tmp_path / "scaling.md").read_text()
    assert page.startswith("before ")
    assert page.endswith(" after")
    assert "| sweep | 10.0 s | 5.0 s | 2.00 | 10.0 s | 100% |" in page
    assert "others took 50% of its processors" in page
    assert "19 files, 30 kB" in page
    assert " old " not in page
    (row,) = (line for line in page.splitlines() if line.startswith("| surfaces |"))
    assert row.endswith(" 0 |")
