"""A sweep on a real Slurm: a cluster of this machine alone, which the test starts and ends (make slurm-test)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

import gruland
from gruland import runs
from gruland.train import train

pytestmark = pytest.mark.slurm

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
SLURM_CONF = """
ClusterName=gruland
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""

RESOURCES = ("partition=main", "cpus_per_task=1", "gpus_per_node=null", "mem_gb=null")

# A job waits in the middle of its second epoch for as long as the file is there.
GATE = """
import time
from pathlib import Path
import pytorch_lightning as pl

class Gate(pl.Callback):
    def __init__(self, hold: str) -> None:
        self.hold = Path(hold)

    def on_train_batch_start(self, trainer, module, batch, number):
        while trainer.current_epoch == 1 and number == 1 and self.hold.exists():
            time.sleep(0.05)
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment of commands that see the cluster: one node of two processors, without cgroups or accounting."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge")
    pytest.importorskip("submitit", reason="needs the extra `slurm`")
    folder = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname().split(".")[0]
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    settings = {"host": host, "folder": folder, "controller": free_port(), "daemon": free_port()}
    text = SLURM_CONF.format(user=subprocess.check_output(["id", "-un"], text=True).strip(), **settings)
    (folder / "slurm.conf").write_text(text)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    paths = {"key-file": "key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "munge.seed"}
    munge = ["munged", "--foreground", "--force", *(f"--{name}={folder / to}" for name, to in paths.items())]
    daemons = []
    try:
        for command in (munge, ["slurmctld", "-D"], ["slurmd", "-D"]):
            with open(folder / f"{command[0]}.out", "w") as said:
                daemons.append(subprocess.Popen(command, env=environment, stdout=said, stderr=said))
            time.sleep(0.5)
        try:
            wait(lambda: "idle" in slurm(environment, "sinfo", "--noheader"), 60, daemons)
        except AssertionError:  # a container may forbid what its daemons do
            said = [
                line for name in ("munged", "slurmctld", "slurmd") for line in _last(folder / f"{name}.out")
            ]
            pytest.skip(f"Slurm is installed and does not start here: {'; '.join(said)}")
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


def _last(file):
    return [f"{file.stem}: {line}" for line in file.read_text().splitlines()[-1:]] if file.exists() else []


def slurm(environment, *words):
    return subprocess.run(words, env=environment, capture_output=True, text=True).stdout


def wait(condition, seconds, processes):
    deadline = time.monotonic() + seconds
    while not condition():
        assert all(process.poll() is None for process in processes), [process.args for process in processes]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def states(environment):
    """Slurm's state of each job by its number."""
    lines = slurm(environment, "squeue", "--array", "--noheader", "--format=%i %T").splitlines()
    return dict(line.split() for line in lines)


def test_jobs_that_are_cancelled_queued_again_and_signalled_end_as_if_nothing_had_happened(
    cluster, tmp_path, monkeypatch
):
    """Each of the three goes on in the middle of its second epoch, whatever happens to it there."""
    (tmp_path / "gate.py").write_text(GATE)
    (tmp_path / "conf" / "callbacks").mkdir(parents=True)
    hold = tmp_path / "hold"
    (tmp_path / "conf/callbacks/gate.yaml").write_text(f"gate:\n  _target_: gate.Gate\n  hold: {hold}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GRULAND_ALLOW", "gate")
    words = ["experiment=smoke", "regularizer=zoneout", "regularizer.rate=0.1", "model.hidden_size=8", "threads=1",
             "trainer.max_epochs=3", "callbacks=[default,gate]", "landscape.size=3", "data.batch_size=16"]  # fmt: skip

    # Undisturbed, in this process.
    options = (f"output_dir={tmp_path / 'plain'}", f"hydra.searchpath=[file://{tmp_path / 'conf'}]")
    plain = [train(gruland.compose(*words, *options, f"seed={seed}")) for seed in range(3)]

    hold.touch()
    command = [
        sys.executable,
        "-m",
        "gruland.train",
        "--config-dir",
        "conf",
        *words,
        "seed=0,1,2",
        "output_dir=slurm",
    ]
    command += ["hydra/launcher=slurm", *(f"hydra.launcher.{said}" for said in RESOURCES), "-m"]
    environment = {
        **cluster,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "GRULAND_ALLOW": "gate",
    }
    report = {
        "cwd": tmp_path,
        "env": environment,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    sweep = subprocess.Popen(command, **report)
    try:
        wait(lambda: len(waiting(tmp_path / "slurm")) == 2, 120, [sweep])
        array = next(iter(states(cluster))).partition("_")[0]
        assert states(cluster) == {f"{array}_0": "RUNNING", f"{array}_1": "RUNNING", f"{array}_2": "PENDING"}
        slurm(cluster, "scancel", f"{array}_0")
        wait(lambda: len(waiting(tmp_path / "slurm")) == 3, 120, [sweep])
        slurm(cluster, "scontrol", "requeue", f"{array}_1")
        slurm(cluster, "scancel", "--signal=USR2", f"{array}_2")
        wait(lambda: set(states(cluster).values()) == {"PENDING"}, 60, [sweep])
        hold.unlink()
        out, err = sweep.communicate(timeout=300)
    finally:
        sweep.kill()

    # The sweep waited for the two that were queued again, and says which one was cancelled.
    assert sweep.returncode == 1, err
    assert f"gruland: Slurm's job {array}_0 ended without a result (cancelled): see " in err, err
    assert "sacct" not in out + err
    found = {run.results["seed"]: run for run in map(runs.Run, runs.find(tmp_path / "slurm"))}
    assert [found[seed].results["status"] for seed in range(3)] == ["running", "finished", "finished"]

    # The same command goes on with it.
    done = subprocess.run(command, timeout=300, **report)
    assert done.returncode == 0, done.stderr
    assert [measured(found[seed]) for seed in range(3)] == [measured(run) for run in plain]


def waiting(folder):
    """The runs that have their first epoch's checkpoint."""
    return list(folder.glob("*/*/checkpoints/last.ckpt"))


def measured(run):
    """All that a run came to but what depends on when and where: seconds, versions, file checksums of such."""
    results = run.results
    weights = {name: digest for name, digest in results["files"].items() if name.endswith(".safetensors")}
    assert len(weights) == 2
    losses = run.metrics.drop(columns="seconds").to_csv()
    kept = {key: results[key] for key in ("name", "data", "metrics")}
    scores = {name: attack["scores"] for name, attack in results["attacks"].items()}
    surface = {key: results["landscape"][key] for key in ("center_loss", "min_loss", "max_loss")}
    return kept, weights, losses, scores, surface
