"""The Triton kernel of whole stacks in evaluation: many weight sets, all layers, through time to the last states.

P points (weight sets), B sequences, V words, K tables, L layers, H hidden units. The step's equations are those
of ``layer_kernel.py``, with zoneout's expectation.

The first layer's input projections come from K tables [V, 3H], whose combination with a point's K factors is
formed while they are gathered: with those of the weights and of two directions and the factors (1, alpha, beta),
a plane's points need no table each. A layer's input is the ``between`` of the state below.

Work is cut into items, a point and a tile of SEQUENCES sequences. As many programs as the GPU runs at once take
items in turn, the longest sequences first. Neighbouring items are GROUP points of the same tile: the tables' rows
are then read from memory once for all of them, while GROUP points' weights stay in the L2 cache.

Two layers of 128 units have 288 KB of matrices in bfloat16, more than a multiprocessor holds: they stream from
the L2 cache in panels of UNITS x DEPTH, for SEQUENCES sequences at a time. States go by way of a program's own
piece of memory, [L, 3, rows, SEQUENCES] float32: two states by turns (a panel is written while others still read
the state before) and the output for the layer above. It stays in the caches.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gruland.kernels.triton.layer_kernel import biases, operand, product, tanh, update, weights

#: What lies between layers, the kernel's BETWEEN.
ACTIVATIONS = {None: 0, "tanh": 1, "relu": 2}


@triton.jit
def _activate(h, BETWEEN: tl.constexpr):
    if BETWEEN == 1:
        h = tanh(h)
    if BETWEEN == 2:
        h = tl.maximum(h, 0.0)
    return h


@triton.jit
def _gather(tables, factors, token, unit, running, words, TABLES: tl.constexpr, HIDDEN: tl.constexpr):
    """The combined tables' entries [units, sequences] of the three gates for a token of each sequence."""
    real = (unit < HIDDEN)[:, None] & running[None, :]
    at = tables + token.to(tl.int64)[None, :] * 3 * HIDDEN + unit[:, None]
    factor = tl.load(factors)
    a_r = factor * tl.load(at, mask=real, other=0.0)
    a_z = factor * tl.load(at + HIDDEN, mask=real, other=0.0)
    a_n = factor * tl.load(at + 2 * HIDDEN, mask=real, other=0.0)
    for k in tl.static_range(1, TABLES):
        at += words.to(tl.int64) * 3 * HIDDEN
        factor = tl.load(factors + k)
        a_r += factor * tl.load(at, mask=real, other=0.0)
        a_z += factor * tl.load(at + HIDDEN, mask=real, other=0.0)
        a_n += factor * tl.load(at + 2 * HIDDEN, mask=real, other=0.0)
    return a_r, a_z, a_n


@triton.jit
def _products(
    weight,
    source,
    unit,
    p_r,
    p_z,
    p_n,
    HIDDEN: tl.constexpr,
    SEQUENCES: tl.constexpr,
    DEPTH: tl.constexpr,
    PRODUCTS: tl.constexpr,
):
    """The three gates' products of a [3H, H] with a state [rows, SEQUENCES], added to p."""
    column = tl.arange(0, SEQUENCES)
    for first in range(0, HIDDEN, DEPTH):
        depth = first + tl.arange(0, DEPTH)
        x = operand(tl.load(source + depth[:, None] * SEQUENCES + column[None, :]), PRODUCTS)
        w_r, w_z, w_n = weights(weight, unit, depth, HIDDEN, PRODUCTS)
        p_r = product(w_r, x, p_r, PRODUCTS)
        p_z = product(w_z, x, p_z, PRODUCTS)
        p_n = product(w_n, x, p_n, PRODUCTS)
    return p_r, p_z, p_n


@triton.jit(do_not_specialize=["points", "sequences", "words", "zoneout"])
def final_states(
    tables,  # [K, V, 3H], W_ih x + b_ih of the first layer
    factors,  # [P, K]
    tokens,  # int32, rows of a table
    offsets,  # int64 [B + 1]
    order,  # int64 [B]: the sequences by falling length
    weight_ih,  # [L - 1, P, 3H, H], of the layers above the first
    weight_hh,  # [L, P, 3H, H]
    bias_ih,  # [L, P, 3H]
    bias_hh,  # [L, P, 3H]
    work,  # [programs, L, 3, rows, SEQUENCES]
    out,  # [P, B, H]
    points,
    sequences,
    words,
    zoneout,
    LAYERS: tl.constexpr,
    TABLES: tl.constexpr,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,  # H, filled up to whole panels
    UNITS: tl.constexpr,
    SEQUENCES: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    BETWEEN: tl.constexpr,
    ZONES_OUT: tl.constexpr,
    PRODUCTS: tl.constexpr,
):
    STATE: tl.constexpr = ROWS * SEQUENCES
    MATRIX: tl.constexpr = 3 * HIDDEN * HIDDEN
    tiles = tl.cdiv(sequences, SEQUENCES)
    column = tl.arange(0, SEQUENCES)
    work += tl.program_id(0).to(tl.int64) * (LAYERS * 3 * STATE)
    for item in range(tl.program_id(0), points * tiles, tl.num_programs(0)):
        group = item // (GROUP * tiles)
        width = tl.minimum(GROUP, points - group * GROUP)
        within = item - group * GROUP * tiles
        point = (group * GROUP + within % width).to(tl.int64)
        slot = within // width * SEQUENCES + column
        sequence = tl.load(order + slot, mask=slot < sequences, other=0)
        start = tl.load(offsets + sequence)
        length = tl.where(slot < sequences, tl.load(offsets + sequence + 1) - start, 0).to(tl.int32)
        for layer in tl.static_range(LAYERS):
            for panel in range(0, ROWS, UNITS):
                at = (panel + tl.arange(0, UNITS))[:, None] * SEQUENCES + column[None, :]
                tl.store(work + layer * 3 * STATE + at, tl.zeros([UNITS, SEQUENCES], tl.float32))
        tl.debug_barrier()
        for t in range(tl.max(length, 0)):
            running = t < length
            token = tl.load(tokens + start + t, mask=running, other=0)
            for layer in tl.static_range(LAYERS):
                state = work + layer * 3 * STATE
                before, after = state + t % 2 * STATE, state + (1 - t % 2) * STATE
                below = work + (layer * 3 - 1) * STATE
                of_point = layer * points + point
                for panel in range(0, ROWS, UNITS):
                    unit = panel + tl.arange(0, UNITS)
                    at = unit[:, None] * SEQUENCES + column[None, :]
                    if layer == 0:
                        a_r, a_z, a_n = _gather(
                            tables, factors + point * TABLES, token, unit, running, words, TABLES, HIDDEN
                        )
                    else:
                        b_r, b_z, b_n = biases(bias_ih + of_point * 3 * HIDDEN, unit, HIDDEN)
                        zero = tl.zeros([UNITS, SEQUENCES], tl.float32)
                        matrix = weight_ih + (of_point - points) * MATRIX
                        a_r, a_z, a_n = _products(
                            matrix,
                            below,
                            unit,
                            zero + b_r,
                            zero + b_z,
                            zero + b_n,
                            HIDDEN,
                            SEQUENCES,
                            DEPTH,
                            PRODUCTS,
                        )
                    b_r, b_z, b_n = biases(bias_hh + of_point * 3 * HIDDEN, unit, HIDDEN)
                    p_r, p_z, u = _products(
                        weight_hh + of_point * MATRIX,
                        before,
                        unit,
                        a_r + b_r,
                        a_z + b_z,
                        tl.zeros_like(a_n) + b_n,
                        HIDDEN,
                        SEQUENCES,
                        DEPTH,
                        PRODUCTS,
                    )
                    h = tl.load(before + at)
                    _, _, _, h = update(0.0, 0.0, a_n, p_r, p_z, u, h, zoneout, ZONES_OUT)
                    tl.store(after + at, h)
                    if layer + 1 < LAYERS:
                        tl.store(state + 2 * STATE + at, _activate(h, BETWEEN))
                    else:
                        last = (t == length - 1)[None, :] & (unit < HIDDEN)[:, None]
                        row = (point * sequences + sequence)[None, :] * HIDDEN
                        tl.store(out + row + unit[:, None], h, mask=last)
                tl.debug_barrier()  # what this layer wrote is read by other threads from here on
