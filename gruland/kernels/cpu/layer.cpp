// One GRU layer over a batch of sequences, forward and backward, in float32.
//
// T time steps, B sequences, I inputs, H hidden units. A step, with the gates r, z, n (torch.nn.GRU's equations)
// and zoneout's k (a mask of zeros and ones, or one probability for all units):
//
//   r = sigmoid(W_r x + b_r + U_r h + c_r)      z = sigmoid(W_z x + b_z + U_z h + c_z)
//   u = U_n h + c_n                             n = tanh(W_n x + b_n + r u)
//   h' = z' h + (1 - z') n                      z' = k + (1 - k) z
//
// The derivatives of h' by the arguments of the gates need nothing from later steps; the forward pass stores them:
//
//   slope_n = (1 - z') (1 - n^2)    slope_u = slope_n r    slope_r = slope_n u r (1 - r)
//   slope_z = (1 - k) (h - n) z (1 - z)
//
// With d, the gradient by h', the backward pass has d * slope for the gates and d z' + U' (d * slope_u,r,z) for h.
//
// Threads. Sequences are sorted by falling length; thread q of Q takes sequences q, q + Q, q + 2Q, ... through all
// steps, so that ragged batches are shared evenly and no padding is computed. The weights' gradients are split by
// weights. Every sum runs in an order that depends on neither the number of threads nor the batch's composition.
//
// Layout. Forward panels are those of vectors.h; backward panel p holds 2 V outputs, [3 gates * padded H][2][V].
// Saved per running (step, sequence), in that order: [5][padded H] slope_u, slope_r, slope_z, slope_n, z'. The
// gates of U are the first three, those of W the second to the fourth. The backward pass multiplies the slopes in
// place, and the weights' gradients are computed from there.

#include "vectors.h"

namespace {

constexpr int WIDE = 2 * V, SAVED = 5;
constexpr int64_t BLOCK = 96;  // rows that are multiplied by a panel while it stays in the cache

// Where a matrix's three gates begin in a saved row, and which gates (0 r, 1 z, 2 n) they are.
struct Gates {
  int first, order[GATES];
};
constexpr Gates STATE_GATES = {0, {2, 0, 1}}, INPUT_GATES = {1, {0, 1, 2}};

// sum [R][3][V] += over n of a[n][first : first + R] times the three vectors at b + n * b_stride + c * gate_stride.
template <int R>
void multiply_outer(int rows, float* sum, const float* const* a, int64_t first, const float* b, int64_t b_stride,
                    int64_t gate_stride, int64_t count) {
  if constexpr (R > 1)
    if (rows < R) return multiply_outer<R - 1>(rows, sum, a, first, b, b_stride, gate_stride, count);
  vec s[R][GATES] = {};
  for (int64_t n = 0; n < count; n++, b += b_stride) {
    const float* row = a[n] + first;
    vec g[GATES];
#pragma GCC unroll 3
    for (int c = 0; c < GATES; c++) g[c] = load(b + c * gate_stride);
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
      float value = row[i];
#pragma GCC unroll 3
      for (int c = 0; c < GATES; c++) s[i][c] += value * g[c];
    }
  }
  for (int i = 0; i < R; i++)
    for (int c = 0; c < GATES; c++, sum += V) store(sum, load(sum) + s[i][c]);
}

// weight [3 H, width] -> [panel][3 gates in the saved order * padded H][2][V], zero beyond H and width.
Array<float> pack_backward(const float* weight, int64_t hidden, int64_t width, Gates gates) {
  int64_t padded = ceil_div(hidden, V) * V, panels = ceil_div(width, WIDE);
  Array<float> packed = zeros(panels * GATES * padded * WIDE);
  for (int64_t p = 0; p < panels; p++)
    for (int g = 0; g < GATES; g++)
      for (int64_t unit = 0; unit < hidden; unit++)
        std::memcpy(packed.get() + ((p * GATES + g) * padded + unit) * WIDE,
                    weight + (gates.order[g] * hidden + unit) * width + p * WIDE,
                    sizeof(float) * std::min<int64_t>(WIDE, width - p * WIDE));
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

struct Batch {
  int64_t steps, sequences, inputs, hidden, threads;
  const int64_t* active;  // [T] sequences that run at each step
  Rows x, states;         // [T, B, I], [T, B, H]
  float* h0;              // [B, H]
  float *weight_ih, *weight_hh, *bias_ih, *bias_hh;
};
}

namespace {

struct Layer : Batch {
  int64_t panels, padded, saved_stride, total;
  std::vector<int64_t> offset;  // [T] the first saved row of each step

  explicit Layer(const Batch& batch) : Batch(batch), panels(ceil_div(hidden, V)), padded(panels * V),
                                       saved_stride(SAVED * padded), total(0), offset(steps) {
    for (int64_t t = 0; t < steps; t++) offset[t] = total, total += active[t];
    int64_t work = total * GATES * hidden * (hidden + inputs);
    threads = std::max<int64_t>(1, std::min({threads, sequences, work / SHARE}));
  }

  // How many of thread q's sequences run at step t.
  int64_t running(int q, int64_t t) const { return std::max<int64_t>(0, ceil_div(active[t] - q, threads)); }
  const float* previous(int64_t t, int64_t b) const { return t ? states(t - 1, b) : h0 + b * hidden; }
};

struct Forward {
  const Layer& layer;
  Rows keep;  // data may be null
  float zoneout;
  float* saved;  // null: no gradient is wanted
  Array<float> panels_ih, panels_hh, bias_ih, bias_hh;

  Forward(const Layer& l, Rows keep, float zoneout, float* saved)
      : layer(l), keep(keep), zoneout(zoneout), saved(saved),
        panels_ih(pack_forward(l.weight_ih, l.hidden, l.inputs)),
        panels_hh(pack_forward(l.weight_hh, l.hidden, l.hidden)),
        bias_ih(pack_bias(l.bias_ih, l.hidden)), bias_hh(pack_bias(l.bias_hh, l.hidden)) {}

  void run(int q) const {
    Array<float> projected = array(std::max(BLOCK, layer.running(q, 0)) * GATES * layer.padded);
    for (int64_t t = 0, rows; t < layer.steps && (rows = layer.running(q, t)) > 0;) {
      int64_t end = std::min(layer.steps, t + std::max<int64_t>(1, BLOCK / rows));
      project(q, t, end, projected.get());
      const float* x = projected.get();
      for (; t < end; t++) {
        step(q, t, x);
        x += layer.running(q, t) * GATES * layer.padded;
      }
    }
    zero_padding(q);
  }

  // projected [rows][panel][3][V] = the input's part of the gates of steps begin .. end - 1, with all biases but c_n.
  void project(int q, int64_t begin, int64_t end, float* projected) const {
    std::vector<const float*> rows;
    for (int64_t t = begin; t < end; t++)
      for (int64_t i = 0; i < layer.running(q, t); i++) rows.push_back(layer.x(t, q + i * layer.threads));
    for (int64_t p = 0; p < layer.panels; p++) {
      vec bias[GATES];
      for (int g = 0; g < GATES; g++)
        bias[g] = load(&bias_ih[p * PANEL + g * V]) + (g < 2 ? load(&bias_hh[p * PANEL + g * V]) : vec{});
      each_tile(rows.size(), [&](int64_t first, int64_t last) {
        vec sums[ROWS][GATES];
        for (int64_t i = first; i < last; i++)
          for (int g = 0; g < GATES; g++) sums[i - first][g] = bias[g];
        multiply<Float32, ROWS, GATES>(last - first, sums, &rows[first], layer.inputs, &panels_ih[p * layer.inputs * PANEL]);
        for (int64_t i = first; i < last; i++)
          for (int g = 0; g < GATES; g++)
            store(projected + (i * layer.panels + p) * PANEL + g * V, sums[i - first][g]);
      });
    }
  }

  void step(int q, int64_t t, const float* projected) const {
    std::vector<const float*> previous(layer.running(q, t));
    for (size_t i = 0; i < previous.size(); i++) previous[i] = layer.previous(t, q + i * layer.threads);
    for (int64_t p = 0; p < layer.panels; p++)
      each_tile(previous.size(), [&](int64_t first, int64_t last) {
        vec sums[ROWS][GATES];
        const float* x = projected + (first * layer.panels + p) * PANEL;
        for (int64_t i = 0; i < last - first; i++) {
          sums[i][0] = load(x + i * layer.panels * PANEL);
          sums[i][1] = load(x + i * layer.panels * PANEL + V);
          sums[i][2] = load(&bias_hh[p * PANEL + 2 * V]);
        }
        multiply<Float32, ROWS, GATES>(last - first, sums, &previous[first], layer.hidden, &panels_hh[p * layer.hidden * PANEL]);
        for (int64_t i = first; i < last; i++)
          update(t, q + i * layer.threads, p, sums[i - first], load(x + (i - first) * layer.panels * PANEL + 2 * V));
      });
  }

  // The new state of the units of panel p of sequence b, from r's and z's arguments, u, and the input's part of n's.
  void update(int64_t t, int64_t b, int64_t p, const vec (&sums)[GATES], vec x_n) const {
    int64_t first = p * V, units = layer.hidden - first;
    vec r = sigmoid(sums[0]), z = sigmoid(sums[1]), u = sums[2], n = tanh(x_n + r * u);
    vec k = keep.data ? load(keep(t, b) + first, units) : vec{} + zoneout;
    vec h = load(layer.previous(t, b) + first, units), update = (1.0f - k) * (1.0f - z), carry = 1.0f - update;
    store(layer.states(t, b) + first, update * n + carry * h, units);
    if (!saved) return;
    vec slope_n = update * (1.0f - n * n), slope_u = slope_n * r;
    float* to = saved + (layer.offset[t] + b) * layer.saved_stride + first;
    store(to, slope_u);
    store(to + layer.padded, slope_u * u * (1.0f - r));
    store(to + 2 * layer.padded, update * (h - n) * z);
    store(to + 3 * layer.padded, slope_n);
    store(to + 4 * layer.padded, carry);
  }

  void zero_padding(int q) const {
    for (int64_t t = 0; t < layer.steps; t++)
      for (int64_t i = layer.running(q, t), b; (b = q + i * layer.threads) < layer.sequences; i++)
        std::memset(layer.states(t, b), 0, sizeof(float) * layer.hidden);
  }
};

struct Backward {
  const Layer& layer;
  float* saved;  // slopes, then gradients by the gates' arguments
  Rows grad_states;
  float* grad_h0;
  Array<float> panels_hh;

  Backward(const Layer& l, float* saved, Rows grad_states, float* grad_h0)
      : layer(l), saved(saved), grad_states(grad_states), grad_h0(grad_h0),
        panels_hh(pack_backward(l.weight_hh, l.hidden, l.hidden, STATE_GATES)) {}

  void run(int q) const {
    int64_t rows = layer.running(q, 0), stride = ceil_div(layer.hidden, WIDE) * WIDE;
    Array<float> grad = zeros(rows * stride);
    for (int64_t t = layer.steps - 1; t >= 0; t--)
      each_tile(layer.running(q, t), [&](int64_t first, int64_t last) {
        const float* gates[ROWS];
        for (int64_t i = first; i < last; i++)
          gates[i - first] = multiply_slopes(t, q + i * layer.threads, &grad[i * stride]);
        carry_back(last - first, gates, &grad[first * stride], stride);
      });
    for (int64_t i = 0; i < rows; i++)
      std::memcpy(grad_h0 + (q + i * layer.threads) * layer.hidden, &grad[i * stride], sizeof(float) * layer.hidden);
  }

  // grad: the gradient by the state, from later steps -> its part that goes straight to the previous state.
  const float* multiply_slopes(int64_t t, int64_t b, float* grad) const {
    float* gates = saved + (layer.offset[t] + b) * layer.saved_stride;
    const float* from_output = grad_states(t, b);
    for (int64_t j = 0; j < layer.padded; j += V) {
      vec d = load(grad + j) + load(from_output + j, layer.hidden - j);
      for (int g = 0; g < 4; g++) store(gates + g * layer.padded + j, d * load(gates + g * layer.padded + j));
      store(grad + j, d * load(gates + 4 * layer.padded + j));
    }
    return gates;
  }

  void carry_back(int64_t rows, const float* const* gates, float* grad, int64_t stride) const {
    for (int64_t first = 0; first < layer.hidden; first += WIDE) {
      vec sums[ROWS][2];
      for (int64_t i = 0; i < rows; i++)
        for (int c = 0; c < 2; c++) sums[i][c] = load(grad + i * stride + first + c * V);
      multiply<Float32, ROWS, 2>(rows, sums, gates, GATES * layer.padded, &panels_hh[first * GATES * layer.padded]);
      for (int64_t i = 0; i < rows; i++)
        for (int c = 0; c < 2; c++) store(grad + i * stride + first + c * V, sums[i][c]);
    }
  }
};

// The gradient of the input, block by block of saved rows.
void input_gradient(const Layer& layer, int q, const float* saved, const float* panels_ih, Rows grad_x) {
  std::vector<float*> to;
  for (int64_t t = 0; t < layer.steps; t++) {
    for (int64_t b = 0; b < layer.active[t]; b++) to.push_back(grad_x(t, b));
    for (int64_t b = layer.active[t] + q; b < layer.sequences; b += layer.threads)
      std::memset(grad_x(t, b), 0, sizeof(float) * layer.inputs);
  }
  for (int64_t block = q * BLOCK; block < layer.total; block += layer.threads * BLOCK)
    for (int64_t first = 0; first < layer.inputs; first += WIDE)
      each_tile(std::min(BLOCK, layer.total - block), [&](int64_t begin, int64_t end) {
        vec sums[ROWS][2] = {};
        const float* gates[ROWS];
        for (int64_t i = begin; i < end; i++)
          gates[i - begin] = saved + (block + i) * layer.saved_stride + INPUT_GATES.first * layer.padded;
        multiply<Float32, ROWS, 2>(end - begin, sums, gates, GATES * layer.padded, panels_ih + first * GATES * layer.padded);
        for (int64_t i = begin; i < end; i++)
          for (int c = 0; c < 2; c++)
            if (first + c * V < layer.inputs)
              store(to[block + i] + first + c * V, sums[i - begin][c], layer.inputs - first - c * V);
      });
}

// The gradient of a weight matrix [3 H, depth] that is multiplied by rows [total][depth].
struct WeightGradient {
  const Layer& layer;
  const std::vector<const float*>& rows;
  int64_t depth, tiles;
  Gates gates;
  float* grad;  // [3 H, depth]
  Array<float> sums;  // [panel][depth][3][V]

  WeightGradient(const Layer& l, const std::vector<const float*>& rows, int64_t depth, Gates gates, float* grad)
      : layer(l), rows(rows), depth(depth), tiles(ceil_div(depth, ROWS)), gates(gates), grad(grad),
        sums(zeros(l.panels * depth * PANEL)) {}

  int64_t items() const { return layer.panels * tiles; }
  int64_t begin(int64_t item) const { return item % tiles * depth / tiles; }
  int64_t end(int64_t item) const { return (item % tiles + 1) * depth / tiles; }
  float* sum(int64_t item) const { return &sums[(item / tiles * depth + begin(item)) * PANEL]; }

  void add(int64_t item, const float* saved, int64_t block, int64_t count) const {
    const float* from = saved + block * layer.saved_stride + gates.first * layer.padded + item / tiles * V;
    multiply_outer<ROWS>(end(item) - begin(item), sum(item), &rows[block], begin(item), from, layer.saved_stride,
                         layer.padded, count);
  }

  void unpack(int64_t item) const {
    const float* from = sum(item);
    int64_t first = item / tiles * V, units = std::min<int64_t>(V, layer.hidden - first);
    for (int64_t k = begin(item); k < end(item); k++)
      for (int g = 0; g < GATES; g++, from += V)
        for (int64_t unit = 0; unit < units; unit++)
          grad[(gates.order[g] * layer.hidden + first + unit) * depth + k] = from[unit];
  }
};

void weight_gradients(int q, int64_t threads, int64_t total, const float* saved,
                      const std::vector<WeightGradient>& gradients) {
  for (int64_t block = 0; block < total; block += BLOCK)
    for (auto& g : gradients)
      for (int64_t item = g.items() * q / threads; item < g.items() * (q + 1) / threads; item++)
        g.add(item, saved, block, std::min(BLOCK, total - block));
  for (auto& g : gradients)
    for (int64_t item = g.items() * q / threads; item < g.items() * (q + 1) / threads; item++) g.unpack(item);
}

}  // namespace

extern "C" {

// Array<float> that the forward pass saves per running (step, sequence).
int64_t gru_saved_floats(int64_t hidden) { return SAVED * ceil_div(hidden, V) * V; }

void gru_forward(const Batch* batch, Rows keep, float zoneout, float* saved) {
  Layer layer(*batch);
  use_huge_pages(layer.states.data, layer.steps * layer.sequences * layer.hidden);
  if (saved) use_huge_pages(saved, layer.total * layer.saved_stride);
  Forward forward(layer, keep, zoneout, saved);
  in_parallel(layer.threads, [&](int q) { forward.run(q); });
}

// grad_x.data, grad_weight_ih and grad_weight_hh may be null. The slopes in saved become gradients.
void gru_backward(const Batch* batch, float* saved, Rows grad_states, Rows grad_x, float* grad_h0,
                  float* grad_weight_ih, float* grad_weight_hh, float* grad_bias_ih, float* grad_bias_hh) {
  Layer layer(*batch);
  Backward backward(layer, saved, grad_states, grad_h0);
  in_parallel(layer.threads, [&](int q) { backward.run(q); });

  // A bias is the weight of an input that is always one.
  const float one = 1.0f;
  std::vector<const float*> inputs, states, ones(layer.total, &one);
  for (int64_t t = 0; t < layer.steps; t++)
    for (int64_t b = 0; b < layer.active[t]; b++) {
      inputs.push_back(layer.x(t, b));
      states.push_back(layer.previous(t, b));
    }
  std::vector<WeightGradient> gradients;
  if (grad_weight_ih) gradients.emplace_back(layer, inputs, layer.inputs, INPUT_GATES, grad_weight_ih);
  if (grad_weight_hh) gradients.emplace_back(layer, states, layer.hidden, STATE_GATES, grad_weight_hh);
  gradients.emplace_back(layer, ones, 1, INPUT_GATES, grad_bias_ih);
  gradients.emplace_back(layer, ones, 1, STATE_GATES, grad_bias_hh);
  Array<float> panels_ih;
  if (grad_x.data) panels_ih = pack_backward(layer.weight_ih, layer.hidden, layer.inputs, INPUT_GATES);
  in_parallel(layer.threads, [&](int q) {
    weight_gradients(q, layer.threads, layer.total, saved, gradients);
    if (grad_x.data) input_gradient(layer, q, saved, panels_ih.get(), grad_x);
  });
}
}
