"""Runs: what a training leaves behind in its folder, and the only way to read it again.

::

    outputs/<experiment>/<regularizer>-<rate>-h<units>-s<seed>-<hash>/
        config.yaml             the resolved configuration
        checkpoints/best.safetensors   weights of least validation loss;  last.safetensors: after the last epoch
        checkpoints/epoch-N.safetensors   after epoch N, 0 = before training (callbacks=[default,epoch_weights])
        checkpoints/last.ckpt   what an interrupted training goes on from
        metrics.csv             a row an epoch
        results.json            everything measured, see docs/results.md
        landscape/  attack/     surface and pictures; perturbed reviews
        log.txt                 what the command had to say;  .hydra/: its words
"""

from gruland.runs.identity import flat, folder, identity, name, requested, settings
from gruland.runs.objects import build_data, build_defence, build_model, build_vocabulary, instantiate_model
from gruland.runs.preparation import prepare, withdraw, write_config
from gruland.runs.results import SCHEMA, check_results, describe, guessing_loss, named
from gruland.runs.run import Run, at
from gruland.runs.search import find, folders, load, readable

__all__ = [
    "SCHEMA",
    "Run",
    "at",
    "build_data",
    "build_defence",
    "build_model",
    "build_vocabulary",
    "check_results",
    "describe",
    "find",
    "flat",
    "folder",
    "folders",
    "guessing_loss",
    "identity",
    "instantiate_model",
    "load",
    "name",
    "named",
    "prepare",
    "readable",
    "requested",
    "settings",
    "withdraw",
    "write_config",
]
