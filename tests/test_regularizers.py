"""Masks: rates, reproducibility, and what they depend on."""

from __future__ import annotations

import math

import pytest
import torch

from gruland.regularizers import check_rate
from gruland.regularizers.draws import dropconnect_mask, mix, seeded_zoneout_mask, zoneout_mask


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def within_chance(mask: torch.Tensor, probability: float) -> bool:
    """Whether the share of ones lies within five standard errors of a probability."""
    error = math.sqrt(probability * (1 - probability) / mask.numel())
    return abs(float((mask > 0).double().mean()) - probability) <= 5 * error


@pytest.mark.parametrize("rate", [0, 0.3, 0.999])
def test_a_rate_may_be_anything_from_zero_to_below_one(rate: float) -> None:
    assert check_rate(rate) == rate


@pytest.mark.parametrize("rate", [-0.1, 1, math.nan, math.inf, "high", True, None])
def test_other_rates_are_refused(rate: object) -> None:
    with pytest.raises(ValueError, match=rf"rate={rate}: expected a number in \[0, 1\)"):
        check_rate(rate)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
def test_zoneout_keeps_at_its_rate(rate: float) -> None:
    keep_BTH = zoneout_mask(20, 30, 40, rate, generator())
    assert keep_BTH.shape == (30, 20, 40)
    assert set(keep_BTH.unique().tolist()) <= {0.0, 1.0}
    assert within_chance(keep_BTH, rate)


def test_zoneout_differs_in_every_direction() -> None:
    keep_BTH = zoneout_mask(20, 30, 40, 0.5, generator())
    for dim in range(3):
        assert not torch.equal(keep_BTH.select(dim, 0), keep_BTH.select(dim, 1))


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
def test_dropconnect_drops_at_its_rate_and_scales_the_rest(rate: float) -> None:
    mask = dropconnect_mask(64, rate, generator())
    assert mask.shape == (192, 64)
    assert within_chance(mask, 1 - rate)
    scale = 0.0 if rate == 1 else 1 / (1 - rate)
    torch.testing.assert_close(mask[mask > 0], torch.full_like(mask[mask > 0], scale))


def test_masks_follow_their_generator_and_leave_torchs_alone() -> None:
    before = torch.get_rng_state()
    for draw in (
        lambda g: zoneout_mask(3, 4, 5, 0.5, g),
        lambda g: dropconnect_mask(5, 0.5, g),
    ):
        assert torch.equal(draw(generator(1)), draw(generator(1)))
        assert not torch.equal(draw(generator(1)), draw(generator(2)))
    seeded_zoneout_mask([3, 2], [7, 8], 5, 0.5)
    assert torch.equal(torch.get_rng_state(), before)


def test_masks_follow_torchs_seed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first = zoneout_mask(3, 4, 5, 0.5), dropconnect_mask(5, 0.5)
        torch.manual_seed(5)
        second = zoneout_mask(3, 4, 5, 0.5), dropconnect_mask(5, 0.5)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_seeded_mask_depends_on_the_seed_alone() -> None:
    together = seeded_zoneout_mask([2, 9, 5], [10, 11, 12], 40, 0.3)
    alone = seeded_zoneout_mask([5], [12], 40, 0.3)
    longer = seeded_zoneout_mask([40], [12], 40, 0.3)
    assert torch.equal(together[2, :5], alone[0])
    assert torch.equal(longer[0, :5], alone[0])
    assert not together[0, 2:].any()
    assert not torch.equal(together[1, :5], together[2, :5])
    assert within_chance(longer, 0.3)


def test_seeds_and_lengths_must_match() -> None:
    with pytest.raises(ValueError, match="1 seeds for 2 sequences"):
        seeded_zoneout_mask([2, 3], [10], 4, 0.3)


def test_mix_begins_as_splitmix64_does() -> None:
    # The first output of SplitMix64 from the states 0 and 1234567, as in its reference implementation.
    assert mix(0) == 0xE220A8397B1DCDAF
    assert mix(1234567) == 6457827717110365317


def test_mix_tells_neighbours_and_orders_apart() -> None:
    seeds = {mix(seed, layer, key) for seed in range(10) for layer in range(3) for key in range(-20, 20)}
    assert len(seeds) == 10 * 3 * 40
    assert mix(1, 2) != mix(2, 1)
    assert all(0 <= seed < 2**64 for seed in seeds)
