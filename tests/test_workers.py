"""Tasks in this process and in others: the same results, whoever dies; a clear line where it cannot work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from gruland.workers import Workers


def results(workers, tasks):
    return sorted((task, result) for task, result, _ in workers.map(tasks))


def test_this_process_works_in_order_and_asks_for_a_task_at_a_time():
    asked = []

    def tasks():
        for number in range(4):
            asked.append(number)
            yield number

    with Workers(lambda number: (number**2, len(asked))) as workers:
        found = list(workers.map(tasks()))
    assert workers.alone
    assert [(done.task, *done.result) for done in found] == [(0, 0, 1), (1, 1, 2), (2, 4, 3), (3, 9, 4)]
    assert all(done.seconds >= 0 for done in found)


def test_other_processes_give_the_same_whatever_dies(tmp_path):
    """One function for all calls, closures travel, errors come back, and a killed worker's tasks are done again."""
    parent, killed = os.getpid(), tmp_path / "killed"

    def square(number):
        assert os.getpid() != parent
        if number == 7 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number < 0:
            raise ValueError(f"number={number}: expected none below 0")
        return number**2, os.environ["OMP_NUM_THREADS"]

    with Workers(square, 2) as workers:
        assert not workers.alone
        found = results(workers, range(20))
        assert [(task, result[0]) for task, result in found] == [(n, n**2) for n in range(20)]
        assert {result[1] for _, result in found} == {"1"}
        assert killed.exists()
        with pytest.raises(ValueError, match=r"^number=-1: expected none below 0$"):
            results(workers, [1, -1])
        # The pool stays: no task of the second call waits for processes to start.
        assert [result[0] for _, result in results(workers, [3])] == [9]


class Odd(Exception):
    """It can be pickled, and not be made again from that."""

    def __init__(self, name, reason):
        super().__init__(f"{name}: {reason}")


def test_copies_of_this_process_leave_interrupts_to_it_and_say_what_went_wrong():
    def look(number):
        if number == 0:
            raise Odd("number=0", "expected another")
        return signal.getsignal(signal.SIGINT) is signal.SIG_IGN

    with Workers(look, 2, fork=True) as workers:
        assert results(workers, [1, 2]) == [(1, True), (2, True)]
        with pytest.raises(RuntimeError, match=r"^Odd: number=0: expected another$"):
            results(workers, [0])


def test_a_task_that_kills_every_worker_is_given_up_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("gruland.workers.DEATHS", 1)

    def die(_):
        (tmp_path / f"{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    with (
        pytest.raises(ChildProcessError, match=r"killed again and again: expected memory for 2 of them"),
        Workers(die, 2) as workers,
    ):
        results(workers, [0])
    assert len(list(tmp_path.iterdir())) == 2


PARENT = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
sys.modules["torch"] = SimpleNamespace(get_num_threads=lambda: 2)  # all that is asked of it, without its start
from gruland.workers import Workers

def work(number):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(60)

if __name__ == "__main__":
    with Workers(work, 2) as workers:
        list(workers.map(range(4)))
"""


def test_no_worker_outlives_its_parent(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    deadline = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2:
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    left = [int(path.name) for path in tmp_path.iterdir()]
    while any(_alive(process) for process in left):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_impossible_numbers_of_workers(number):
    with pytest.raises(ValueError, match=f"workers={number}: expected a whole number of at least 1"):
        Workers(abs, number)


def test_an_engine_that_is_unknown_or_not_installed(monkeypatch):
    with pytest.raises(ValueError, match="engine=dask: expected local or ray"):
        Workers(abs, 2, "dask")
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ImportError, match=r"engine=ray needs Ray: pip install 'gruland\[ray\]'"),
        Workers(abs, 2, "ray") as workers,
    ):
        results(workers, [1])


def test_a_cluster_has_no_more_tasks_at_work_than_were_asked_for(monkeypatch):
    at_work, most = [], []

    def begin(_, task):
        at_work.append(task)
        most.append(len(at_work))
        return task

    def get(task):
        at_work.remove(task)
        return task, 0.0

    fake = SimpleNamespace(
        is_initialized=lambda: True, put=lambda value: value, get=get,
        remote=lambda **_: lambda _: SimpleNamespace(remote=begin), wait=lambda handles, num_returns: (handles[:1], []),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", fake)
    with Workers(abs, 2, "ray") as workers:
        assert results(workers, range(5)) == [(n, n) for n in range(5)]
    assert max(most) == 2


def test_ray_gives_the_same_and_does_lost_tasks_again(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    killed = tmp_path / "killed"

    def square(number):
        if number == 3 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number < 0:
            raise ValueError(f"number={number}: expected none below 0")
        return number**2

    with Workers(square, 2, "ray") as workers:
        assert results(workers, range(6)) == [(n, n**2) for n in range(6)]
        assert killed.exists()
        with pytest.raises(ValueError, match=r"^number=-1: expected none below 0$"):
            results(workers, [1, -1])


def test_a_node_of_a_ray_cluster_that_is_removed_loses_nothing(tmp_path):
    ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    from ray.cluster_utils import Cluster

    def draws(seed):
        """Random bits of a seed; node and process are only noted."""
        (tmp_path / f"{seed}-{ray.get_runtime_context().get_node_id()}-{os.getpid()}").touch()
        time.sleep(1)
        return np.random.default_rng(seed).normal(size=100).tobytes()

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        found = {}
        with Workers(draws, 2, "ray") as workers:
            for seed, result, _ in workers.map(range(16)):
                assert seed not in found
                found[seed] = result
                if len(found) == 4:
                    nodes = {
                        path.name.split("-")[1]: int(path.name.split("-")[2]) for path in tmp_path.iterdir()
                    }
                    assert len(nodes) == 2
                    os.kill(nodes[second.node_id], signal.SIGKILL)
                    cluster.remove_node(second, allow_graceful=False)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert len(list(tmp_path.iterdir())) > 16, "no task was at work on the node that was removed"
    assert found == {seed: np.random.default_rng(seed).normal(size=100).tobytes() for seed in range(16)}
