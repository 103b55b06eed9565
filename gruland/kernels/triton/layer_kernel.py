"""The Triton kernels of one GRU layer: through time and back.

T time steps, B sequences, H hidden units; S rows of a packed batch: the running sequences of step 0, then those
of step 1, ... Gates in torch's order r, z, n. The equations are those of :mod:`gruland.kernels.eager`: with the
input's part a = W_ih x + b_ih (a large matrix product outside) and p = W_hh h + b_hh, u = p_n,

    r = sigmoid(a_r + p_r)      s = sigmoid(a_z + p_z)      n = tanh(a_n + r u)
    z = k + (1 - k) s           h' = n + z (h - n)          k: the zoneout mask's entry, or its expectation

and back, from the gradient d of h' and with q = 1 - z,

    g_n = d q (1 - n^2)         g_u = g_n r                 g_r = g_n u r (1 - r)
    g_z = d (h - n) q s         d  <- z d + W_hh^T (g_r, g_z, g_u)

Memory: states [B + S, H] begin with h0, and rows[t] is where the states before step t begin; a step's inputs
[S, 3H], saved gates [S, 4H] in the order r, z, n, u and their gradients in the same order lie at row
rows[t + 1] - B. So padding is neither read nor written.

One program takes SEQUENCES sequences through all steps. Its tiles are transposed, [units, sequences]: tensor
cores want 64 rows but take 8 columns, and it is the units that are many. With a batch of 32 that gives four
programs instead of one, and a step's time is what counts: steps can't run side by side.

RESIDENT: all units are one tile, the three recurrent matrices stay on chip for the whole pass (96 KB for 128
units in bfloat16, of a Hopper multiprocessor's 227 KB) and the state in registers; what the next step needs
from memory is asked for before this step's products. Otherwise the matrices stream from the L2 cache in panels
of UNITS x DEPTH, and the state goes by way of memory, since a tile in registers can't be cut into panels.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

#: How zoneout acts, the kernels' ZONEOUT.
NONE, EXPECTATION, GIVEN, DRAWN = (tl.constexpr(mode) for mode in range(4))
_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def tanh(x):
    return 1 - 2 / (1 + tl.exp(2 * x))


@triton.jit
def operand(x, PRODUCTS: tl.constexpr):
    """x as products take it."""
    if PRODUCTS == "bfloat16":
        if _INTERPRETED:  # it would cut digits off, not round, and multiply the bits of bfloat16 as integers
            bits = x.to(tl.float32).to(tl.uint32, bitcast=True)
            bits = bits + 0x7FFF + ((bits >> 16) & 1) & 0xFFFF0000
            x = bits.to(tl.float32, bitcast=True)
        else:
            x = x.to(tl.bfloat16)
    return x


@triton.jit
def product(a, b, total, PRODUCTS: tl.constexpr):
    """total + a b, summed in float32: PRODUCTS of "bfloat16" operands, or of float32 ones ("ieee": in full)."""
    if PRODUCTS == "bfloat16":
        total = tl.dot(a, b, total, input_precision="ieee")
    else:
        total = tl.dot(a, b, total, input_precision=PRODUCTS)
    return total


@triton.jit
def weights(weight, unit, depth, HIDDEN: tl.constexpr, PRODUCTS: tl.constexpr):
    """The panels [units, depth] of the three gates' matrices, in rows of a [3H, H]."""
    at = weight + unit[:, None] * HIDDEN + depth[None, :]
    real = (unit < HIDDEN)[:, None] & (depth < HIDDEN)[None, :]
    return (
        operand(tl.load(at, mask=real, other=0.0), PRODUCTS),
        operand(tl.load(at + HIDDEN * HIDDEN, mask=real, other=0.0), PRODUCTS),
        operand(tl.load(at + 2 * HIDDEN * HIDDEN, mask=real, other=0.0), PRODUCTS),
    )


@triton.jit
def biases(bias, unit, HIDDEN: tl.constexpr):
    """The three gates' entries [units, 1] of a [3H]."""
    at, real = bias + unit[:, None], (unit < HIDDEN)[:, None]
    return (
        tl.load(at, mask=real, other=0.0),
        tl.load(at + HIDDEN, mask=real, other=0.0),
        tl.load(at + 2 * HIDDEN, mask=real, other=0.0),
    )


@triton.jit
def _load3(at, runs, HIDDEN: tl.constexpr):
    return (
        tl.load(at, mask=runs, other=0.0),
        tl.load(at + HIDDEN, mask=runs, other=0.0),
        tl.load(at + 2 * HIDDEN, mask=runs, other=0.0),
    )


@triton.jit
def _store4(at, runs, v0, v1, v2, v3, HIDDEN: tl.constexpr):
    tl.store(at, v0, mask=runs)
    tl.store(at + HIDDEN, v1, mask=runs)
    tl.store(at + 2 * HIDDEN, v2, mask=runs)
    tl.store(at + 3 * HIDDEN, v3, mask=runs)


@triton.jit
def _draw(seed, t, unit, sequence, SHAPE_LIKE):
    """Four words for each unit and sequence, the draws of the 8 steps of which t is one: see philox.py."""
    zero = SHAPE_LIKE.to(tl.int32) * 0
    return tl.philox(seed, zero + unit[:, None], zero + sequence[None, :], zero + t // 8, zero, n_rounds=10)


@triton.jit
def _drawn(w0, w1, w2, w3, t, limit):
    """The mask's entries of step t: 16 bits of the words below the limit."""
    pair = t % 8 // 2
    word = tl.where(pair < 2, tl.where(pair == 0, w0, w1), tl.where(pair == 2, w2, w3))
    return ((word >> (t % 2 * 16)).to(tl.int32) & 0xFFFF) < limit


@triton.jit
def update(a_r, a_z, a_n, p_r, p_z, u, h, keep, ZONES_OUT: tl.constexpr):
    """A step's r, z, n and the new state."""
    r, z, n = sigmoid(a_r + p_r), sigmoid(a_z + p_z), 0.0
    if ZONES_OUT:
        z = keep + (1 - keep) * z
    n = tanh(a_n + r * u)
    return r, z, n, n + z * (h - n)


@triton.jit(do_not_specialize=["sequences", "zoneout", "seed", "limit"])
def forward(
    inputs,  # [S, 3H]
    states,  # [B + S, H], h0 in the first B rows
    saved,  # [S, 4H], written if SAVE
    weight,  # [3H, H]
    bias,  # [3H]
    keep,  # [S, H], read if ZONEOUT is GIVEN
    rows,  # int64 [T + 1]
    lengths,  # int64 [B]
    sequences,
    zoneout,
    seed: tl.uint64,
    limit,
    HIDDEN: tl.constexpr,
    UNITS: tl.constexpr,
    SEQUENCES: tl.constexpr,
    DEPTH: tl.constexpr,
    RESIDENT: tl.constexpr,
    ZONEOUT: tl.constexpr,
    SAVE: tl.constexpr,
    PRODUCTS: tl.constexpr,
):
    first = tl.program_id(0) * SEQUENCES
    sequence = first + tl.arange(0, SEQUENCES)
    steps = tl.load(lengths + first).to(tl.int32)  # the first is the longest
    length = tl.load(lengths + sequence, mask=sequence < sequences, other=0)
    if RESIDENT:
        unit = tl.arange(0, UNITS)
        real = (unit < HIDDEN)[:, None]
        w_r, w_z, w_n = weights(weight, unit, unit, HIDDEN, PRODUCTS)
        b_r, b_z, b_n = biases(bias, unit, HIDDEN)
        runs = real & (length > 0)[None, :]
        h = tl.load(states + sequence[None, :] * HIDDEN + unit[:, None], mask=runs, other=0.0)
        a_r, a_z, a_n = _load3(inputs + sequence[None, :] * 3 * HIDDEN + unit[:, None], runs, HIDDEN)
        if ZONEOUT == DRAWN:
            w0, w1, w2, w3 = _draw(seed, 0, unit, sequence, h)
        for t in range(steps):
            row = tl.load(rows + t + 1) + sequence
            ahead = tl.minimum(t + 1, steps - 1)
            next_row = tl.load(rows + ahead + 1) - sequences + sequence
            next_runs = real & (ahead < length)[None, :]
            at = inputs + next_row[None, :] * 3 * HIDDEN + unit[:, None]
            next_r, next_z, next_n = _load3(at, next_runs, HIDDEN)
            runs = real & (t < length)[None, :]
            at = (row - sequences)[None, :] * HIDDEN + unit[:, None]
            k = tl.zeros_like(h) + zoneout
            if ZONEOUT == GIVEN:
                k = tl.load(keep + at, mask=runs, other=0.0)
            if ZONEOUT == DRAWN:
                if t % 8 == 0:
                    w0, w1, w2, w3 = _draw(seed, t, unit, sequence, h)
                k = _drawn(w0, w1, w2, w3, t, limit).to(tl.float32)
            x = operand(h, PRODUCTS)
            p_r = product(w_r, x, a_r + b_r, PRODUCTS)
            p_z = product(w_z, x, a_z + b_z, PRODUCTS)
            u = product(w_n, x, tl.zeros_like(h), PRODUCTS) + b_n
            r, z, n, h = update(0.0, 0.0, a_n, p_r, p_z, u, h, k, ZONEOUT != NONE)
            tl.store(states + row[None, :] * HIDDEN + unit[:, None], h, mask=runs)
            if SAVE:
                at = (row - sequences)[None, :] * 4 * HIDDEN + unit[:, None]
                _store4(saved + at, runs, r, z, n, u, HIDDEN)
            a_r, a_z, a_n = next_r, next_z, next_n
    else:
        for t in range(steps):
            before = tl.load(rows + t) + sequence
            row = tl.load(rows + t + 1) + sequence
            running = (t < length)[None, :]
            for panel in range(0, HIDDEN, UNITS):
                unit = panel + tl.arange(0, UNITS)
                runs = (unit < HIDDEN)[:, None] & running
                at = (row - sequences)[None, :] * HIDDEN + unit[:, None]
                a_r, a_z, a_n = _load3(
                    inputs + (row - sequences)[None, :] * 3 * HIDDEN + unit[:, None], runs, HIDDEN
                )
                h = tl.load(states + before[None, :] * HIDDEN + unit[:, None], mask=runs, other=0.0)
                k = tl.zeros_like(h) + zoneout
                if ZONEOUT == GIVEN:
                    k = tl.load(keep + at, mask=runs, other=0.0)
                if ZONEOUT == DRAWN:
                    # Eight times as often as needed: words of all panels would have to be kept.
                    w0, w1, w2, w3 = _draw(seed, t, unit, sequence, h)
                    k = _drawn(w0, w1, w2, w3, t, limit).to(tl.float32)
                b_r, b_z, b_n = biases(bias, unit, HIDDEN)
                p_r, p_z, u = a_r + b_r, a_z + b_z, tl.zeros_like(h) + b_n
                for d in range(0, HIDDEN, DEPTH):
                    depth = d + tl.arange(0, DEPTH)
                    from_state = states + before[None, :] * HIDDEN + depth[:, None]
                    x = tl.load(from_state, mask=(depth < HIDDEN)[:, None] & running, other=0.0)
                    x = operand(x, PRODUCTS)
                    w_r, w_z, w_n = weights(weight, unit, depth, HIDDEN, PRODUCTS)
                    p_r, p_z, u = (
                        product(w_r, x, p_r, PRODUCTS),
                        product(w_z, x, p_z, PRODUCTS),
                        product(w_n, x, u, PRODUCTS),
                    )
                r, z, n, h = update(0.0, 0.0, a_n, p_r, p_z, u, h, k, ZONEOUT != NONE)
                tl.store(states + row[None, :] * HIDDEN + unit[:, None], h, mask=runs)
                if SAVE:
                    at = (row - sequences)[None, :] * 4 * HIDDEN + unit[:, None]
                    _store4(saved + at, runs, r, z, n, u, HIDDEN)
            tl.debug_barrier()  # the next step's panels read what other threads wrote


@triton.jit
def _gate_gradients(d, r, z, n, u, h, zoneout, scale, PRODUCTS: tl.constexpr):
    """The gradients of the arguments of r, z and n and of u, from d, that of the new state, as operands."""
    s = (z - zoneout) * scale  # z = p + (1 - p) s
    g_z = d * (h - n) * (1 - z) * s
    g_n = d * (1 - z) * (1 - n * n)
    g_u = g_n * r
    g_r = g_u * u * (1 - r)
    return operand(g_r, PRODUCTS), operand(g_z, PRODUCTS), operand(g_n, PRODUCTS), operand(g_u, PRODUCTS)


@triton.jit
def _load_saved(saved, states, grads, row, before, unit, runs, sequences, HIDDEN: tl.constexpr):
    """A step's r, z, n, u, the state before it and the gradient of the state after it."""
    at = saved + (row - sequences)[None, :] * 4 * HIDDEN + unit[:, None]
    r, z, n = _load3(at, runs, HIDDEN)
    u = tl.load(at + 3 * HIDDEN, mask=runs, other=0.0)
    h = tl.load(states + before[None, :] * HIDDEN + unit[:, None], mask=runs, other=0.0)
    grad = tl.load(grads + (row - sequences)[None, :] * HIDDEN + unit[:, None], mask=runs, other=0.0)
    return r, z, n, u, h, grad


@triton.jit(do_not_specialize=["sequences", "zoneout", "scale"])
def backward(
    saved,  # [S, 4H] of r, z, n, u
    states,  # [B + S, H]
    grads,  # [S, H], of the states
    gate_grads,  # [S, 4H], written: of the arguments of r, z and n, and of u; bfloat16 if PRODUCTS are
    grad_h0,  # [B, H], zeros at first; carries the state's gradient if not RESIDENT
    weight,  # [3H, H], each gate's matrix transposed
    rows,  # int64 [T + 1]
    lengths,  # int64 [B]
    sequences,
    zoneout,  # of the expectation, else 0: then z is the sigmoid wherever its gradient isn't zero
    scale,  # 1 / (1 - zoneout)
    HIDDEN: tl.constexpr,
    UNITS: tl.constexpr,
    SEQUENCES: tl.constexpr,
    DEPTH: tl.constexpr,
    RESIDENT: tl.constexpr,
    PRODUCTS: tl.constexpr,
):
    first = tl.program_id(0) * SEQUENCES
    sequence = first + tl.arange(0, SEQUENCES)
    steps = tl.load(lengths + first).to(tl.int32)
    length = tl.load(lengths + sequence, mask=sequence < sequences, other=0)
    if RESIDENT:
        unit = tl.arange(0, UNITS)
        real = (unit < HIDDEN)[:, None]
        w_r, w_z, w_n = weights(weight, unit, unit, HIDDEN, PRODUCTS)
        row, before = tl.load(rows + steps) + sequence, tl.load(rows + steps - 1) + sequence
        runs = real & (steps - 1 < length)[None, :]
        r, z, n, u, h, grad = _load_saved(saved, states, grads, row, before, unit, runs, sequences, HIDDEN)
        d = tl.zeros_like(h)
        for back in range(steps):
            t = steps - 1 - back
            runs = real & (t < length)[None, :]
            ahead = tl.maximum(t - 1, 0)
            next_row, next_before = tl.load(rows + ahead + 1) + sequence, tl.load(rows + ahead) + sequence
            next_runs = real & (ahead < length)[None, :]
            r_, z_, n_, u_, h_, grad_ = _load_saved(
                saved, states, grads, next_row, next_before, unit, next_runs, sequences, HIDDEN
            )
            d += grad
            g_r, g_z, g_n, g_u = _gate_gradients(d, r, z, n, u, h, zoneout, scale, PRODUCTS)
            at = gate_grads + (row - sequences)[None, :] * 4 * HIDDEN + unit[:, None]
            _store4(at, runs, g_r, g_z, g_n, g_u, HIDDEN)
            d = product(w_r, g_r, d * z, PRODUCTS)
            d = product(w_z, g_z, d, PRODUCTS)
            d = product(w_n, g_u, d, PRODUCTS)
            row, before = next_row, next_before
            r, z, n, u, h, grad = r_, z_, n_, u_, h_, grad_
        runs = real & (sequence < sequences)[None, :]
        tl.store(grad_h0 + sequence[None, :] * HIDDEN + unit[:, None], d, mask=runs)
    else:
        for back in range(steps):
            t = steps - 1 - back
            row, before = tl.load(rows + t + 1) + sequence, tl.load(rows + t) + sequence
            running = (t < length)[None, :]
            at_row = gate_grads + (row - sequences)[None, :] * 4 * HIDDEN
            for panel in range(0, HIDDEN, UNITS):
                unit = panel + tl.arange(0, UNITS)
                runs = (unit < HIDDEN)[:, None] & running
                r, z, n, u, h, grad = _load_saved(
                    saved, states, grads, row, before, unit, runs, sequences, HIDDEN
                )
                carry = grad_h0 + sequence[None, :] * HIDDEN + unit[:, None]
                d = tl.load(carry, mask=runs, other=0.0) + grad
                g_r, g_z, g_n, g_u = _gate_gradients(d, r, z, n, u, h, zoneout, scale, PRODUCTS)
                _store4(at_row + unit[:, None], runs, g_r, g_z, g_n, g_u, HIDDEN)
                tl.store(carry, d * z, mask=runs)
            tl.debug_barrier()
            for panel in range(0, HIDDEN, UNITS):
                unit = panel + tl.arange(0, UNITS)
                runs = (unit < HIDDEN)[:, None] & running
                carry = grad_h0 + sequence[None, :] * HIDDEN + unit[:, None]
                d = tl.load(carry, mask=runs, other=0.0)
                for first_depth in range(0, HIDDEN, DEPTH):
                    depth = first_depth + tl.arange(0, DEPTH)
                    w_r, w_z, w_n = weights(weight, unit, depth, HIDDEN, PRODUCTS)
                    at, real = at_row + depth[:, None], (depth < HIDDEN)[:, None] & running
                    d = product(w_r, operand(tl.load(at, mask=real, other=0.0), PRODUCTS), d, PRODUCTS)
                    at += HIDDEN
                    d = product(w_z, operand(tl.load(at, mask=real, other=0.0), PRODUCTS), d, PRODUCTS)
                    at += 2 * HIDDEN
                    d = product(w_n, operand(tl.load(at, mask=real, other=0.0), PRODUCTS), d, PRODUCTS)
                tl.store(carry, d, mask=runs)
            tl.debug_barrier()
