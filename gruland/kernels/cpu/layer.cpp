// One GRU layer over a batch of sequences, forward and backward; products in float32 or bfloat16, all else in float32.
//
// T time steps, B sequences, I inputs, H hidden units. A step, with the gates r, z, n (torch.nn.GRU's equations)
// and zoneout's k (a mask of zeros and ones, or one probability for all units):
//
//   r = sigmoid(W_r x + b_r + U_r h + c_r)      z = sigmoid(W_z x + b_z + U_z h + c_z)
//   u = U_n h + c_n                             n = tanh(W_n x + b_n + r u)
//   h' = z' h + (1 - z') m n                    z' = k + (1 - k) z
//
// m are given factors of the candidate n, or one.
//
// The derivatives of h' by the arguments of the gates need nothing from later steps; the forward pass stores them:
//
//   slope_n = (1 - z') m (1 - n^2)    slope_u = slope_n r    slope_r = slope_n u r (1 - r)
//   slope_z = (1 - k) (h - m n) z (1 - z)
//
// With d, the gradient by h', the backward pass has d * slope for the gates and d z' + U' (d * slope_u,r,z) for h.
// x may be the activation of a raw input, e.g. tanh of the layer below; then the gradient is that of the raw one.
//
// In bfloat16 the operands of products are rounded once: weights, x, h and d * slope. Biases are not.
//
// Threads. Sequences are sorted by falling length; thread q of Q takes sequences q, q + Q, q + 2Q, ... through all
// steps, so that ragged batches are shared evenly and no padding is computed. The weights' gradients are split by
// weights. Every sum runs in an order that depends on neither the number of threads nor the batch's composition.
//
// Layout. Forward panels are those of vectors.h; backward panel p holds 2 V outputs, [3 gates * padded H / PACK][2][V]
// [PACK]. Operands of products lie in rows that each thread packs for itself. Saved are the cells of vectors of units,
// [panels][running (step, sequence), in that order]. The gates of U are a cell's first three, those of W the second to
// the fourth. The backward pass multiplies the slopes in place, and the weights' gradients are computed from there.

#include "vectors.h"

namespace {

constexpr int WIDE = 2 * V, SLOPES = 4;
constexpr int64_t BLOCK = 96;    // rows that are multiplied by a panel while it stays in the cache
constexpr int64_t SUMMED = 512;  // rows that a gradient of weights sums up at once
constexpr int64_t AHEAD = 16;    // rows by which they are fetched before

// Which gates (0 r, 1 z, 2 n) a matrix has in the order of a cell, and where they begin.
struct Gates {
  int first, order[GATES];
};
constexpr Gates STATE_GATES = {0, {2, 0, 1}}, INPUT_GATES = {1, {0, 1, 2}};

// V units of a step of a sequence. The backward pass leaves P::number gradient[4][V] in the slopes' place.
struct Cell {
  float slope[SLOPES][V], carry[V];  // by the arguments of u, r, z, n; z'
};

// Rows lie apart where the batch comes first, and no processor guesses the next one.
inline void prefetch(const float* row, int64_t n) {
  for (int64_t j = 0; j < n; j += 16) __builtin_prefetch(row + j);
}

// A row of n floats as a product's operand, zero up to a multiple of V.
template <class N>
void round_row(N* to, const float* from, int64_t n) {
  for (int64_t j = 0; j < n; j += V) store_rounded(to + j, load(from + j, n - j));
}

// Rows of N numbers as [N][PACK], which is what a product sums up over them.
template <int N>
void interleave(float* to, const float* const* rows) {
  std::memcpy(to, rows[0], sizeof(float) * N);
}
template <int N>
void interleave(uint16_t* to, const uint16_t* const* rows) {
  uint32_t pairs[N];
  for (int i = 0; i < N; i++) pairs[i] = rows[0][i] | uint32_t(rows[1][i]) << 16;
  std::memcpy(to, pairs, sizeof(pairs));
}

// sums [R][3] += over n of a [n / PACK][ROWS][PACK] times the three vectors of g [n / PACK][SLOPES][V][PACK].
template <class P, int R>
void multiply_outer(int rows, vec (*sums)[GATES], const typename P::number* a, const typename P::number* g,
                    int64_t count) {
  if constexpr (R > 1)
    if (rows < R) return multiply_outer<P, R - 1>(rows, sums, a, g, count);
  vec s[R][GATES] = {};
  for (int64_t n = 0; n < count; n += P::PACK, a += ROWS * P::PACK, g += SLOPES * V * P::PACK) {
    vec b[GATES];
#pragma GCC unroll 3
    for (int c = 0; c < GATES; c++) b[c] = load(reinterpret_cast<const float*>(g + c * V * P::PACK));
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 3
      for (int c = 0; c < GATES; c++) s[i][c] = P::multiply_add(s[i][c], a + i * P::PACK, b[c]);
    }
  }
  for (int i = 0; i < R; i++)
    for (int c = 0; c < GATES; c++) sums[i][c] += s[i][c];
}

// weight [3 H, width] -> [panel][3 gates in a cell's order * padded H / PACK][2][V][PACK], zero beyond H and width.
template <class P>
Array<typename P::number> pack_backward(const float* weight, int64_t hidden, int64_t width, Gates gates) {
  int64_t padded = ceil_div(hidden, V) * V, panels = ceil_div(width, WIDE);
  auto packed = zeros<typename P::number>(panels * GATES * padded * WIDE);
  for (int64_t p = 0; p < panels; p++)
    for (int g = 0; g < GATES; g++)
      for (int64_t unit = 0; unit < hidden; unit++) {
        int64_t k = (p * GATES + g) * padded + unit;
        const float* from = weight + (gates.order[g] * hidden + unit) * width + p * WIDE;
        auto* to = packed.get() + k / P::PACK * WIDE * P::PACK + k % P::PACK;
        for (int64_t j = 0; j < std::min<int64_t>(WIDE, width - p * WIDE); j++) to[j * P::PACK] = P::round(from[j]);
      }
  return packed;
}

}  // namespace

extern "C" {

// A [T, B, n] tensor whose last axis is contiguous.
struct Rows {
  float* data;
  int64_t step, sequence;
  float* operator()(int64_t t, int64_t b) const { return data + t * step + b * sequence; }
};

// A mask of floats or of bytes: the one that has data; neither is the expectation.
struct Keep {
  Rows floats;
  const uint8_t* bytes;
  int64_t step, sequence;
};

enum Activation : int64_t { NONE, TANH, RELU };

struct Batch {
  int64_t steps, sequences, inputs, hidden, threads;
  const int64_t* active;  // [T] sequences that run at each step
  Rows raw, x, states;    // [T, B, I], [T, B, I], [T, B, H]
  Activation activation;  // x = activation(raw), which the forward pass writes; NONE: x is given
  float* h0;              // [B, H]
  float *weight_ih, *weight_hh, *bias_ih, *bias_hh;
};
}

namespace {

struct Layer : Batch {
  int64_t panels, padded, total;
  std::vector<int64_t> offset;  // [T] the first cell of each step

  explicit Layer(const Batch& batch)
      : Batch(batch), panels(ceil_div(hidden, V)), padded(panels * V), total(0), offset(steps) {
    for (int64_t t = 0; t < steps; t++) offset[t] = total, total += active[t];
    int64_t work = total * GATES * hidden * (hidden + inputs);
    threads = std::max<int64_t>(1, std::min({threads, sequences, work / SHARE}));
  }

  // How many of thread q's sequences run at step t.
  int64_t running(int q, int64_t t) const { return std::max<int64_t>(0, ceil_div(active[t] - q, threads)); }
  const float* previous(int64_t t, int64_t b) const { return t ? states(t - 1, b) : h0 + b * hidden; }

  // Zeros in thread q's sequences beyond their length.
  void zero_padding(int q, Rows rows, int64_t width) const {
    for (int64_t t = 0; t < steps; t++)
      for (int64_t b = q + running(q, t) * threads; b < sequences; b += threads)
        std::memset(rows(t, b), 0, sizeof(float) * width);
  }

  void activate(int64_t t, int64_t b) const {
    for (int64_t j = 0; j < inputs; j += V) {
      vec v = load(raw(t, b) + j, inputs - j);
      store(x(t, b) + j, activation == TANH ? tanh(v) : v < 0.0f ? vec{} : v, inputs - j);
    }
  }

  // grad * activation'(raw), at input j of V.
  vec through_activation(vec grad, int64_t t, int64_t b, int64_t j) const {
    if (activation == NONE) return grad;
    vec v = load(x(t, b) + j, inputs - j);
    return activation == TANH ? grad * (1.0f - v * v) : v > 0.0f ? grad : vec{};
  }
};

// Rows of a product's operand, one thread's.
template <class P>
struct Operand {
  typedef typename P::number number;
  int64_t stride;
  Array<number> numbers;

  Operand(int64_t rows, int64_t depth) : stride(ceil_div(depth, V) * V), numbers(zeros<number>(rows * stride)) {}
  number* row(int64_t i) const { return &numbers[i * stride]; }

  // sums [rows][C] += rows first ... last - 1, from column begin on, times a panel.
  template <int C>
  void times(const number* panel, int64_t begin, int64_t depth, int64_t first, int64_t last, vec (*sums)[C]) const {
    const number* rows[ROWS];
    for (int64_t i = first; i < last; i++) rows[i - first] = row(i) + begin;
    multiply<P, ROWS, C>(last - first, sums, rows, depth, panel);
  }
};

template <class P>
struct Forward {
  const Layer& layer;
  Keep keep;
  Rows factors;  // of the candidate; data may be null
  float zoneout;
  Cell* saved;  // null: no gradient is wanted
  int64_t packs_ih, packs_hh;
  Array<typename P::number> panels_ih, panels_hh;
  Array<float> bias_ih, bias_hh;

  Forward(const Layer& l, Keep keep, Rows factors, float zoneout, Cell* saved)
      : layer(l), keep(keep), factors(factors), zoneout(zoneout), saved(saved), packs_ih(ceil_div(l.inputs, P::PACK)),
        packs_hh(ceil_div(l.hidden, P::PACK)), panels_ih(pack_forward<P>(l.weight_ih, l.hidden, l.inputs)),
        panels_hh(pack_forward<P>(l.weight_hh, l.hidden, l.hidden)), bias_ih(pack_bias(l.bias_ih, l.hidden)),
        bias_hh(pack_bias(l.bias_hh, l.hidden)) {}

  void run(int q) const {
    int64_t sequences = layer.running(q, 0), block = std::max(BLOCK, sequences);
    Operand<P> x(block, layer.inputs), state(sequences, layer.hidden), next(sequences, layer.hidden);
    Array<float> projected = array(block * GATES * layer.padded);
    for (int64_t i = 0; i < sequences; i++)
      round_row(state.row(i), layer.previous(0, q + i * layer.threads), layer.hidden);
    for (int64_t t = 0, rows; t < layer.steps && (rows = layer.running(q, t)) > 0;) {
      int64_t end = std::min(layer.steps, t + std::max<int64_t>(1, BLOCK / rows));
      project(q, t, end, x, projected.get());
      for (const float* from = projected.get(); t < end; t++) {
        step(q, t, from, state, next);
        std::swap(state, next);
        from += layer.running(q, t) * GATES * layer.padded;
      }
    }
    layer.zero_padding(q, layer.states, layer.hidden);
  }

  // projected [rows][panel][3][V] = the input's part of the gates of steps begin .. end - 1, with all biases but c_n.
  void project(int q, int64_t begin, int64_t end, const Operand<P>& x, float* projected) const {
    int64_t rows = 0;
    for (int64_t t = begin; t < end; t++)
      for (int64_t b = q; b < layer.active[t]; b += layer.threads) {
        if (layer.activation != NONE) layer.activate(t, b);
        round_row(x.row(rows++), layer.x(t, b), layer.inputs);
      }
    for (int64_t p = 0; p < layer.panels; p++) {
      vec bias[GATES];
      for (int g = 0; g < GATES; g++)
        bias[g] = load(&bias_ih[p * PANEL + g * V]) + (g < 2 ? load(&bias_hh[p * PANEL + g * V]) : vec{});
      each_tile(rows, [&](int64_t first, int64_t last) {
        vec sums[ROWS][GATES];
        for (int64_t i = first; i < last; i++)
          for (int g = 0; g < GATES; g++) sums[i - first][g] = bias[g];
        x.template times<GATES>(&panels_ih[p * packs_ih * PANEL * P::PACK], 0, layer.inputs, first, last, sums);
        for (int64_t i = first; i < last; i++)
          for (int g = 0; g < GATES; g++)
            store(projected + (i * layer.panels + p) * PANEL + g * V, sums[i - first][g]);
      });
    }
  }

  void step(int q, int64_t t, const float* projected, const Operand<P>& state, const Operand<P>& next) const {
    for (int64_t p = 0; p < layer.panels; p++)
      each_tile(layer.running(q, t), [&](int64_t first, int64_t last) {
        vec sums[ROWS][GATES];
        const float* x = projected + (first * layer.panels + p) * PANEL;
        for (int64_t i = 0; i < last - first; i++) {
          sums[i][0] = load(x + i * layer.panels * PANEL);
          sums[i][1] = load(x + i * layer.panels * PANEL + V);
          sums[i][2] = load(&bias_hh[p * PANEL + 2 * V]);
        }
        state.template times<GATES>(&panels_hh[p * packs_hh * PANEL * P::PACK], 0, layer.hidden, first, last, sums);
        for (int64_t i = first; i < last; i++) {
          vec x_n = load(x + (i - first) * layer.panels * PANEL + 2 * V);
          vec h = update(t, q + i * layer.threads, p, sums[i - first], x_n);
          store_rounded(next.row(i) + p * V, h);
        }
      });
  }

  Cell* cell(int64_t t, int64_t b, int64_t p) const { return &saved[p * layer.total + layer.offset[t] + b]; }

  // The new state of the units of panel p of sequence b, from r's and z's arguments, u, and the input's part of n's.
  vec update(int64_t t, int64_t b, int64_t p, const vec (&sums)[GATES], vec x_n) const {
    int64_t first = p * V, units = layer.hidden - first;
    vec e_r = exp(-sums[0], 43.0f), e_z = exp(-sums[1], 43.0f);  // two sigmoids by one division
    vec inverse = 1.0f / ((1.0f + e_r) * (1.0f + e_z)), r = (1.0f + e_z) * inverse, z = (1.0f + e_r) * inverse;
    vec u = sums[2], n = tanh(x_n + r * u), m = factor(t, b, first, units), given = m * n;
    vec h = load(layer.previous(t, b) + first, units), k = kept(t, b, first, units);
    vec update = (1.0f - k) * (e_z * z), carry = 1.0f - update, state = update * given + carry * h;
    store(layer.states(t, b) + first, state, units);
    if (!saved) return state;
    vec slope_n = update * m * (1.0f - n * n), slope_u = slope_n * r;
    Cell& to = *cell(t, b, p);
    store(to.slope[0], slope_u);
    store(to.slope[1], slope_u * u * (1.0f - r));
    store(to.slope[2], update * (h - given) * z);
    store(to.slope[3], slope_n);
    store(to.carry, carry);
    return state;
  }

  // What V units of the candidate are multiplied by.
  vec factor(int64_t t, int64_t b, int64_t first, int64_t units) const {
    return factors.data ? load(factors(t, b) + first, units) : vec{} + 1.0f;
  }

  // Zoneout's k of V units.
  vec kept(int64_t t, int64_t b, int64_t first, int64_t units) const {
    if (keep.bytes) return load_bytes(keep.bytes + t * keep.step + b * keep.sequence + first, units);
    if (keep.floats.data) return load(keep.floats(t, b) + first, units);
    return vec{} + zoneout;
  }
};

template <class P>
struct Backward {
  typedef typename P::number number;
  const Layer& layer;
  Cell* saved;  // slopes, then gradients by the gates' arguments
  Rows grad_states;         // data may be null
  const float* grad_last;   // [B, H] by the states after the sequences' last steps; may be null
  Rows grad_x;              // data may be null
  float* grad_h0;
  int64_t depth, state_stride;
  Array<number> panels_hh, panels_ih;

  Backward(const Layer& l, Cell* saved, Rows grad_states, const float* grad_last, Rows grad_x, float* grad_h0)
      : layer(l), saved(saved), grad_states(grad_states), grad_last(grad_last), grad_x(grad_x), grad_h0(grad_h0),
        depth(GATES * l.padded), state_stride(ceil_div(l.hidden, WIDE) * WIDE),
        panels_hh(pack_backward<P>(l.weight_hh, l.hidden, l.hidden, STATE_GATES)) {
    if (grad_x.data) panels_ih = pack_backward<P>(l.weight_ih, l.hidden, l.inputs, INPUT_GATES);
  }

  void run(int q) const {
    int64_t sequences = layer.running(q, 0), block = std::max(BLOCK, sequences), rows = 0;
    Operand<P> gates(block, SLOPES * layer.padded);
    Array<float> grad = zeros(sequences * state_stride);
    if (grad_last)
      for (int64_t i = 0; i < sequences; i++)
        std::memcpy(&grad[i * state_stride], grad_last + (q + i * layer.threads) * layer.hidden,
                    sizeof(float) * layer.hidden);
    for (int64_t end = layer.steps, t = end - 1; t >= 0; t--) {
      int64_t running = layer.running(q, t);
      multiply_slopes(q, t, grad.get(), gates, rows);
      carry_back(gates, rows, running, grad.get());
      rows += running;
      if (t == 0 || rows + layer.running(q, t - 1) > block) {
        if (grad_x.data) to_inputs(q, t, end, gates, rows);
        end = t, rows = 0;
      }
    }
    for (int64_t i = 0; i < sequences; i++)
      std::memcpy(grad_h0 + (q + i * layer.threads) * layer.hidden, &grad[i * state_stride],
                  sizeof(float) * layer.hidden);
    if (grad_x.data) layer.zero_padding(q, grad_x, layer.inputs);
  }

  // grad: the gradient by the state, from later steps -> its part that goes straight to the previous state.
  // Rows [4][padded H] of gates: the gradients by the gates' arguments, which also take the slopes' place.
  void multiply_slopes(int q, int64_t t, float* grad, const Operand<P>& gates, int64_t row) const {
    for (int64_t p = 0; p < layer.panels; p++)
      for (int64_t i = 0, b = q; b < layer.active[t]; i++, b += layer.threads) {
        Cell& cell = saved[p * layer.total + layer.offset[t] + b];
        float* carried = grad + i * state_stride + p * V;
        vec d = load(carried), scaled[SLOPES];
        if (grad_states.data) d += load(grad_states(t, b) + p * V, layer.hidden - p * V);
        store(carried, d * load(cell.carry));
        for (int g = 0; g < SLOPES; g++) scaled[g] = d * load(cell.slope[g]);
        for (int g = 0; g < SLOPES; g++) {
          store_rounded(gates.row(row + i) + g * layer.padded + p * V, scaled[g]);
          store_rounded(reinterpret_cast<number*>(&cell) + g * V, scaled[g]);
        }
      }
  }

  // grad += the state's gates times the recurrent weights, of `running` sequences.
  void carry_back(const Operand<P>& gates, int64_t row, int64_t running, float* grad) const {
    for (int64_t j = 0; j < layer.hidden; j += WIDE)
      each_tile(running, [&](int64_t first, int64_t last) {
        vec sums[ROWS][2];
        for (int64_t i = first; i < last; i++)
          for (int c = 0; c < 2; c++) sums[i - first][c] = load(grad + i * state_stride + j + c * V);
        gates.template times<2>(&panels_hh[j * depth], 0, depth, row + first, row + last, sums);
        for (int64_t i = first; i < last; i++)
          for (int c = 0; c < 2; c++) store(grad + i * state_stride + j + c * V, sums[i - first][c]);
      });
  }

  // The gradient of the inputs of steps begin ... end - 1, whose gates lie in rows by falling step.
  void to_inputs(int q, int64_t begin, int64_t end, const Operand<P>& gates, int64_t rows) const {
    std::vector<std::pair<int64_t, int64_t>> where;
    for (int64_t t = end - 1; t >= begin; t--)
      for (int64_t b = q; b < layer.active[t]; b += layer.threads) where.emplace_back(t, b);
    for (int64_t j = 0; j < layer.inputs; j += WIDE)
      each_tile(rows, [&](int64_t first, int64_t last) {
        vec sums[ROWS][2] = {};
        gates.template times<2>(&panels_ih[j * depth], INPUT_GATES.first * layer.padded, depth, first, last, sums);
        for (int64_t i = first; i < last; i++)
          for (int64_t c = 0, k = j; c < 2 && k < layer.inputs; c++, k += V) {
            auto [t, b] = where[i];
            store(grad_x(t, b) + k, layer.through_activation(sums[i - first][c], t, b, k), layer.inputs - k);
          }
      });
  }
};

// The gradient of a weight matrix [3 H, depth] that is multiplied by rows [total][depth], and that of its bias, the
// weight of an input that is always one.
struct WeightGradient {
  const std::vector<const float*> rows;
  int64_t depth;  // 0: only the bias
  Gates gates;
  float *weight, *bias;
  int64_t tiles() const { return ceil_div(depth + 1, ROWS); }
};

// One thread's part: items are pairs of a panel and a tile of ROWS inputs, those of all matrices after each other.
template <class P>
struct WeightSums {
  typedef typename P::number number;
  static constexpr int64_t TILE = SUMMED * ROWS + 64 / sizeof(number);  // skewed: strides of 2^n share cache sets
  const Layer& layer;
  const std::vector<WeightGradient>& gradients;
  int64_t tiles, begin, end;
  Array<vec> sums;         // [item][ROWS][3]
  Array<number> inputs;    // [tile][SUMMED / PACK][ROWS][PACK]
  Array<number> gates;     // [SUMMED / PACK][SLOPES][V][PACK]

  WeightSums(const Layer& l, const std::vector<WeightGradient>& gradients, int q, int64_t threads)
      : layer(l), gradients(gradients), tiles(0), gates(array<number>(SUMMED * SLOPES * V)) {
    for (auto& g : gradients) tiles += g.tiles();
    begin = l.panels * tiles * q / threads, end = l.panels * tiles * (q + 1) / threads;
    sums = zeros<vec>((end - begin) * ROWS * GATES);
    inputs = array<number>(tiles * TILE);
  }

  void run(const Cell* saved) const {
    for (int64_t block = 0; block < layer.total; block += SUMMED) {
      int64_t count = std::min(SUMMED, layer.total - block), tile = 0;
      for (auto& g : gradients) pack_inputs(g, block, count, &inputs[tile * TILE]), tile += g.tiles();
      for (int64_t item = begin; item < end;) {
        int64_t panel = item / tiles, stop = std::min(end, (panel + 1) * tiles);
        pack_gates(saved + panel * layer.total + block, count);
        for (; item < stop; item++) add(item, count);
      }
    }
    for (int64_t item = begin; item < end; item++) unpack(item);
  }

  void pack_inputs(const WeightGradient& gradient, int64_t block, int64_t count, number* to) const {
    int64_t stride = ceil_div(gradient.depth + 1, V) * V;
    Array<number> lines = zeros<number>(P::PACK * stride);
    for (int64_t n = 0; n < count; n += P::PACK, to += ROWS * P::PACK) {
      const number* rows[P::PACK];
      for (int64_t s = 0; s < P::PACK; s++) {
        number* line = &lines[s * stride];
        rows[s] = line;
        if (block + n + s + AHEAD < layer.total) prefetch(gradient.rows[block + n + s + AHEAD], gradient.depth);
        if (n + s < count) round_row(line, gradient.rows[block + n + s], gradient.depth);
        else std::memset(line, 0, sizeof(number) * stride);
        line[gradient.depth] = P::round(n + s < count);
      }
      for (int64_t tile = 0; tile < gradient.tiles(); tile++) {
        interleave<ROWS>(to + tile * TILE, rows);
        for (auto& row : rows) row += ROWS;
      }
    }
  }

  void pack_gates(const Cell* cells, int64_t count) const {
    static constexpr number none[SLOPES * V] = {};
    for (int64_t n = 0; n < count; n += P::PACK) {
      const number* rows[P::PACK];
      for (int64_t s = 0; s < P::PACK; s++)
        rows[s] = n + s < count ? reinterpret_cast<const number*>(cells + n + s) : none;
      interleave<SLOPES * V>(&gates[n * SLOPES * V], rows);
    }
  }

  void add(int64_t item, int64_t count) const {
    auto [gradient, tile] = place(item);
    multiply_outer<P, ROWS>(std::min<int64_t>(ROWS, gradient.depth + 1 - tile * ROWS), sum(item),
                            &inputs[item % tiles * TILE], &gates[gradient.gates.first * V * P::PACK], count);
  }

  void unpack(int64_t item) const {
    auto [gradient, tile] = place(item);
    int64_t first = item / tiles * V, units = std::min<int64_t>(V, layer.hidden - first);
    for (int64_t i = 0, k = tile * ROWS; i < ROWS && k <= gradient.depth; i++, k++)
      for (int g = 0; g < GATES; g++)
        for (int64_t unit = 0; unit < units; unit++) {
          int64_t row = gradient.gates.order[g] * layer.hidden + first + unit;
          (k < gradient.depth ? gradient.weight[row * gradient.depth + k] : gradient.bias[row]) = sum(item)[i][g][unit];
        }
  }

  vec (*sum(int64_t item) const)[GATES] {
    return reinterpret_cast<vec(*)[GATES]>(&sums[(item - begin) * ROWS * GATES]);
  }

  // The matrix and its tile that an item belongs to.
  std::pair<const WeightGradient&, int64_t> place(int64_t item) const {
    int64_t tile = item % tiles;
    auto gradient = gradients.begin();
    for (; tile >= gradient->tiles(); ++gradient) tile -= gradient->tiles();
    return {*gradient, tile};
  }
};

template <class P>
void forward(const Layer& layer, Keep keep, Rows factors, float zoneout, Cell* saved) {
  Forward<P> forward(layer, keep, factors, zoneout, saved);
  in_parallel(layer.threads, [&](int q) { forward.run(q); });
}

template <class P>
void backward(const Layer& layer, Cell* saved, Rows grad_states, const float* grad_last, Rows grad_x, float* grad_h0,
              const std::vector<WeightGradient>& gradients) {
  Backward<P> backward(layer, saved, grad_states, grad_last, grad_x, grad_h0);
  in_parallel(layer.threads, [&](int q) { backward.run(q); });
  in_parallel(layer.threads, [&](int q) { WeightSums<P>(layer, gradients, q, layer.threads).run(saved); });
}

}  // namespace

extern "C" {

// Whether the library multiplies in bfloat16.
int gru_multiplies_bfloat16() {
#ifdef __AVX512BF16__
  return 1;
#else
  return 0;
#endif
}

// Floats that the forward pass saves per running (step, sequence).
int64_t gru_saved_floats(int64_t hidden) { return ceil_div(hidden, V) * sizeof(Cell) / sizeof(float); }

// factors.data and saved may be null.
void gru_forward(const Batch* batch, [[maybe_unused]] int bfloat16, Keep keep, Rows factors, float zoneout,
                 float* saved) {
  Layer layer(*batch);
  use_huge_pages(layer.states.data, layer.steps * layer.sequences * layer.hidden);
  if (layer.activation != NONE) use_huge_pages(layer.x.data, layer.steps * layer.sequences * layer.inputs);
  if (saved) use_huge_pages(saved, layer.total * gru_saved_floats(layer.hidden));
  Cell* cells = reinterpret_cast<Cell*>(saved);
#ifdef __AVX512BF16__
  if (bfloat16) return forward<BFloat16>(layer, keep, factors, zoneout, cells);
#endif
  forward<Float32>(layer, keep, factors, zoneout, cells);
}

// grad_states.data, grad_last, grad_x.data, grad_weight_ih and grad_weight_hh may be null. The slopes in saved become
// gradients.
void gru_backward(const Batch* batch, [[maybe_unused]] int bfloat16, float* saved, Rows grad_states,
                  const float* grad_last, Rows grad_x, float* grad_h0, float* grad_weight_ih, float* grad_weight_hh,
                  float* grad_bias_ih, float* grad_bias_hh) {
  Layer layer(*batch);
  if (grad_x.data) use_huge_pages(grad_x.data, layer.steps * layer.sequences * layer.inputs);
  std::vector<const float*> inputs, states;
  for (int64_t t = 0; t < layer.steps; t++)
    for (int64_t b = 0; b < layer.active[t]; b++) {
      inputs.push_back(layer.x(t, b));
      states.push_back(layer.previous(t, b));
    }
  std::vector<WeightGradient> gradients = {
      {inputs, grad_weight_ih ? layer.inputs : 0, INPUT_GATES, grad_weight_ih, grad_bias_ih},
      {states, grad_weight_hh ? layer.hidden : 0, STATE_GATES, grad_weight_hh, grad_bias_hh}};
  Cell* cells = reinterpret_cast<Cell*>(saved);
#ifdef __AVX512BF16__
  if (bfloat16) return backward<BFloat16>(layer, cells, grad_states, grad_last, grad_x, grad_h0, gradients);
#endif
  backward<Float32>(layer, cells, grad_states, grad_last, grad_x, grad_h0, gradients);
}
}
