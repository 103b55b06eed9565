"""Train one model: compose, fit, test the best checkpoint, measure, write the results.

python -m gruland.train                        one model
python -m gruland.train regularizer=zoneout -m      the regularizer's grid
"""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from gruland import runs

log = logging.getLogger("gruland")

#: Seconds to wait for another process in the run's folder: so long at most a killed sweep's worker may live on.
PATIENCE = 3.0


def train(cfg: DictConfig, patience: float = PATIENCE) -> runs.Run:
    """Do what a composed configuration says and return the finished run.

    A finished run is not repeated, an interrupted one goes on from its last checkpoint. A failure is recorded
    in the run's results.json before it is raised. log.txt is the command's: here the messages go where Python's
    ``logging`` sends those of the logger ``gruland``.

    Args:
        patience: seconds to wait for another process in the run's folder.

    Raises:
        ValueError: a value that cannot work, or a folder that holds another run.
    """
    from gruland import experiment  # Lightning: seconds, and --help needs none of it

    experiment.check(cfg)
    if cfg.trainer.get("fast_dev_run"):
        raise ValueError("trainer.fast_dev_run leaves no run: give it to python -m gruland.train without -m")
    run = runs.prepare(cfg)
    with run.locked(patience):
        run.discard_unreadable()
        runs.write_config(run, cfg)
        with run.recording_failure(cfg):
            run.discard_damaged()
            requested = runs.requested(cfg)
            if run.results.get("requested") == requested and not _is_outdated(cfg, run):
                log.info("%s is finished already", run.path)
                if run.results.get("error"):  # of an attempt to measure more, of which nothing is left to do
                    run.update_results(error=None)
            else:
                _fit_and_measure(cfg, run)
                run.update_results(status="finished", requested=requested)
    return runs.load(run.path, run.allow)


def _is_outdated(cfg: DictConfig, run: runs.Run) -> bool:
    """Whether an attack is to be made again, as its code or a file that it reads was edited."""
    from gruland.attack.run import build, is_outdated

    return any(is_outdated(run, name, attack) for name, attack in build(cfg.attack).items())


def _fit_and_measure(cfg: DictConfig, run: runs.Run) -> None:
    import torch

    from gruland import experiment, loggers
    from gruland.callbacks.checkpoints import resumable
    from gruland.processes import fit
    from gruland.weights import save_weights

    # What the configuration describes, as objects.
    callbacks, attached = experiment.build_callbacks(cfg), loggers.build(cfg, run.path)
    trainer = experiment.build_trainer(cfg, callbacks, attached, run.path)
    torch.set_num_threads(experiment.threads(cfg, trainer.num_devices))
    data = run.data
    model = runs.build_model(cfg, data)

    with loggers.attached(attached, cfg, run):
        # What is measured later, perhaps elsewhere, does not change what is said of the training.
        known = {} if run.is_scored else runs.describe(cfg, model, trainer)
        status = "finished" if run.is_scored else "running"
        inputs = model.defence.inputs(data)
        run.check_inputs(inputs)
        known |= {"inputs": inputs} if inputs else {}
        run.update_results(**known, task=data.task.to_dict(), data=data.report, status=status, error=None)

        # The training, from where an earlier one was interrupted.
        if not run.is_trained:
            fit(trainer, model, data, resumable(run.resumption, model))
            save_weights(model.state_dict(), run.checkpoint("last"))
            run.seal_training()

        # The best epoch's weights; the callbacks score them, compute their surface and attack them.
        model.load_state_dict(run.weights("best", model.state_dict()))
        tester = experiment.build_tester(trainer, cfg, callbacks, attached, run.path)
        tester.test(model, data, verbose=False)
