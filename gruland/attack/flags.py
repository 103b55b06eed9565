"""What makes an attack's numbers suspect, in the manner of AutoAttack's warnings.

Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
and Carlini et al. 2019, "On evaluating adversarial robustness", section 5. A flag is a name and a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gruland import sampling
from gruland.attack.base import RandomVictim, Texts, Victim
from gruland.stats import LEVEL, Difference, holm

#: Texts that are asked twice, and what two outputs of the same text may differ by.
ASKED_TWICE, ROUNDING = 16, 1e-4
#: How much more often an attack may succeed on its own draws of the masks than on fresh ones.
GAP = 0.1


def outputs_vary(victim: Victim, texts: Texts, draws: int) -> dict[str, str]:
    """Whether the same texts are answered in two ways: then every search stops at a lucky answer."""
    asked, keys = texts.texts[:ASKED_TWICE], texts.ids[:ASKED_TWICE]
    pairs = [(victim.logits(asked), victim.logits(asked))]
    if draws and isinstance(victim, RandomVictim):
        pairs.append((victim.draws(asked, keys, count=1, seed=1), victim.draws(asked, keys, count=1, seed=1)))
    differences = [float((first - second).abs().max()) for first, second in pairs]
    if max(differences) <= ROUNDING:
        return {}
    return {
        "outputs_vary": f"the same texts got outputs that differ by up to {max(differences):.2g}: the attack took "
        "lucky answers for success; give the model a method draws, and the attack draws=20"
    }


def gradients_vanish(norms: np.ndarray) -> dict[str, str]:
    """Whether reviews have no gradient [N]: a search by gradients is blind there."""
    zero = int((norms == 0).sum())
    if not zero:
        return {}
    return {
        "gradients_vanish": f"the gradient is zero for {zero} of {len(norms)} reviews: there the attack by gradients "
        "finds nothing, which is no robustness"
    }


def budget_of_no_use(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Whether the accuracy does not fall with what the attack may spend."""
    for name, curve in curves.items():
        accuracies = curve["accuracy"]
        if len(accuracies) < 2 or not accuracies[0]:
            continue
        rises = any(
            later > curve["high"][place]
            for place, _ in enumerate(accuracies)
            for later in accuracies[place + 1 :]
        )
        if rises or accuracies[-1] >= accuracies[0]:
            return {
                "budget_of_no_use": f"the accuracy is {accuracies[0]:.1%} at {name.replace('_', ' ')} "
                f"{curve['at'][0]:g} and {accuracies[-1]:.1%} at {curve['at'][-1]:g}: success does not grow with the "
                "budget, so the attack does not work"
            }
    return {}


def overfits_its_draws(own: np.ndarray, fresh: np.ndarray, draws: int) -> dict[str, str]:
    """Whether reviews [N] that the attack turned under its own draws are right again under fresh ones.

    Args:
        own, fresh: 1 where the attack reached its goal, by the mean probability over its draws and over fresh ones.
    """
    difference = sampling.compare(own, fresh).interval if len(own) > 1 else None
    if difference is None or difference.estimate <= GAP or difference.low <= 0:
        return {}
    return {
        "overfits_its_draws": f"success is {own.mean():.1%} on the attack's {draws} draws of the masks and "
        f"{fresh.mean():.1%} on fresh ones: it fits its draws, give it more (draws={2 * draws})"
    }


def beaten_by_black_box(
    entries: Mapping[str, Mapping[str, Any]], rights: Mapping[str, Any]
) -> dict[str, str]:
    """From each white-box attack that a black-box one beats on the same reviews and draws, to what is said of it.

    The tests of all pairs are corrected for their number (Holm).

    Args:
        entries: ``attacks`` of results.json.
        rights: from an attack's name to the share of right draws under attack, by review id (a pandas Series).
    """
    said: dict[tuple[str, str], str] = {}
    compared: list[tuple[str, str, Difference]] = []
    for white, by_gradients in entries.items():
        for black, by_queries in entries.items():
            kinds = by_gradients.get("knowledge"), by_queries.get("knowledge")
            if kinds != ("gradients", "queries") or not {white, black} <= set(rights):
                continue
            same = [entry["verdict"]["draws"] for entry in (by_gradients, by_queries)]
            common = rights[white].index.intersection(rights[black].index)
            if same[0] != same[1] or len(common) < 2:
                continue
            a, b = rights[white][common].to_numpy(), rights[black][common].to_numpy()
            said[white, black] = (
                f"{black}, which only asks the model, leaves {b.mean():.1%} of {len(common)} reviews right, "
                f"{white} by gradients {a.mean():.1%}: either it may change other things, or is too weak; take the "
                "lower"
            )
            compared.append((white, black, sampling.compare(a, b)))
    corrected = holm([difference for *_, difference in compared])
    found: dict[str, str] = {}
    for (white, black, _), difference in zip(compared, corrected, strict=True):
        p = difference.corrected
        if difference.interval.estimate > 0 and p is not None and p <= LEVEL:
            found[white] = said[white, black]
    return found
