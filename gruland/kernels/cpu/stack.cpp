// Evaluation of a stack of GRU layers over a batch of sequences of words: the last layer's last states, in one pass.
//
// H hidden units, V floats of a vector. Words come as rows of a table, which holds what the first layer makes of them:
// table [words][3 H] = W x + b. The equations of a layer are those of layer.cpp with zoneout's expectation; what a
// layer gives the next one, x = f(h) with f the identity, tanh or relu, never leaves the cache. No state is larger
// than one, as each is a mean of tanh's values and of an initial zero or another sequence's state.
//
// A sequence may begin where another one stands: with its states [layer][H] after some word. As what a sequence makes of
// a word depends on nothing but the states before it, bit for bit, the result is that of the whole sequence.
//
// Slots. A thread carries up to SLOTS sequences at once, all by one step through all layers at a time. When a
// sequence ends, the next one takes its slot, longest first, from a queue that all threads share: micro-kernels
// find full rows until the queue is empty, the last sequences are short, and the threads end together. Every sum of a
// sequence runs in an order that depends on neither the other sequences nor the threads.
//
// Layout. Weights are panels of vectors.h, packed once per call. A slot holds its states, [layer][padded H] float32,
// and its operands, what products read, rounded to what they multiply: [layer][3][padded H], of which one is the
// layer's state before a step and one the state after it (the parity of the step says which), the third is f(h).
// Beyond H all are zero.

#include "vectors.h"

#include <atomic>
#include <numeric>

namespace {

constexpr int64_t SLOTS = 64;  // rows that are multiplied by a panel while it lies in the first cache

enum Between { NONE, TANH, RELU };  // the activation between layers, as stack.py numbers it

// What the state becomes, by the arguments of z and n; update = 1 - zoneout. One division serves both gates,
//   1 - z = e_z / (1 + e_z)    n = (1 - e_n) / (1 + e_n)
// with exponentials that are bounded so that their product is a number.
inline vec next_state(vec h, vec z, vec n, vec update) {
  constexpr float bound = 43.0f;  // e^-43 is far below the rounding of 1
  vec e_z = exp(-z, bound), e_n = exp(-2.0f * n, bound), one_n = 1.0f + e_n;
  return h + update * e_z * (1.0f - e_n - h * one_n) / ((1.0f + e_z) * one_n);
}

// tanh of a state, which lies in [-1, 1]: an odd polynomial with a relative error of 4e-9 before rounding.
inline vec tanh_of_state(vec h) {
  vec s = h * h, p = s * -3.5330144e-4f + 2.2820858e-3f;
  p = p * s - 7.9172617e-3f;
  p = p * s + 2.1464705e-2f;
  p = p * s - 5.3870875e-2f;
  p = p * s + 1.3332160e-1f;
  p = p * s - 3.3333278e-1f;
  p = p * s + 1.0f;
  return p * h;
}

inline vec relu(vec h) { return h < 0.0f ? vec{} : h; }  // lets NaN through

}  // namespace

extern "C" {

struct LayerWeights {
  const float *weight_ih, *weight_hh, *bias_ih, *bias_hh;  // [3 H, H], [3 H, H], [3 H], [3 H]
};

struct Stack {
  int64_t hidden, depth, sequences, threads, between;
  float update;  // 1 - zoneout
  const LayerWeights* layers;  // [depth]; the first layer's input is the table's
  const float* table;          // [words][3 H]
  const int32_t* words;        // [sum of lengths]
  const int64_t* offsets;      // [sequences + 1]: where a sequence's words begin
  const float* initial;        // [sequences][depth][H]: states before the first word, in [-1, 1]; null: zero
  const uint8_t* keep;         // [rows][depth][H]: 1 = a unit keeps its state at a step (zoneout); null: `update` holds
  const int64_t* keep_rows;    // [sequences]: the row of keep for a sequence's first word; the next word's is the next
  float* states;               // [sequences][H]: the result
  float* trace;                // [sum of lengths][depth][H]: the states after each word; null: not wanted
};
}

namespace {

// The weights of V units of a layer.
template <class P>
struct Panel {
  const typename P::number *ih, *hh;  // ih is null in the first layer: the table has its products and biases
  const float *bias, *bias_u;         // [3][V], what r, z and the input's part of n start from; [V] c_n
};

template <class P>
struct Panels {
  int64_t size;
  Array<typename P::number> ih, hh;
  Array<float> bias, bias_hh;

  Panels(const LayerWeights& w, int64_t hidden, bool first)
      : size(ceil_div(hidden, P::PACK) * P::PACK * PANEL),
        ih(first ? nullptr : pack_forward<P>(w.weight_ih, hidden, hidden)),
        hh(pack_forward<P>(w.weight_hh, hidden, hidden)),
        bias(first ? zeros(ceil_div(hidden, V) * PANEL) : pack_bias(w.bias_ih, hidden)),
        bias_hh(pack_bias(w.bias_hh, hidden)) {
    for (int64_t i = 0; i < ceil_div(hidden, V) * PANEL; i++)
      if (i / V % GATES < 2) bias[i] += bias_hh[i];
  }

  Panel<P> at(int64_t p) const {
    return {ih ? &ih[p * size] : nullptr, &hh[p * size], &bias[p * PANEL], &bias_hh[p * PANEL + 2 * V]};
  }
};

// Micro-kernel. sums[i] = the arguments of r and of z, the input's part of n, and u, by the rows x[i] and h[i].
template <class P, int R>
void arguments(int rows, vec (*sums)[GATES + 1], const typename P::number* const* x,
               const typename P::number* const* h, int64_t depth, const Panel<P>& panel) {
  if constexpr (R > 1)
    if (rows < R) return arguments<P, R - 1>(rows, sums, x, h, depth, panel);
  vec s[R][GATES], bias_u = load(panel.bias_u);
#pragma GCC unroll 8
  for (int i = 0; i < R; i++) {
#pragma GCC unroll 3
    for (int g = 0; g < GATES; g++) s[i][g] = load(panel.bias + g * V);
  }
  if (panel.ih) accumulate<P, R, GATES>(s, x, depth, panel.ih);
#pragma GCC unroll 8
  for (int i = 0; i < R; i++) {
    sums[i][2] = s[i][2];
    s[i][2] = bias_u;
  }
  accumulate<P, R, GATES>(s, h, depth, panel.hh);
#pragma GCC unroll 8
  for (int i = 0; i < R; i++) {
    sums[i][0] = s[i][0];
    sums[i][1] = s[i][1];
    sums[i][3] = s[i][2];
  }
}

// What the threads share; fewer of them where there is little work.
template <class P>
struct Evaluation : Stack {
  int64_t panels, padded, slots;
  std::vector<int64_t> order;  // the sequences by falling length
  std::vector<Panels<P>> weights;
  std::atomic<int64_t> taken{0};

  explicit Evaluation(const Stack& stack)
      : Stack(stack), panels(ceil_div(hidden, V)), padded(panels * V), order(sequences) {
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
    for (int64_t l = 0; l < depth; l++) weights.emplace_back(layers[l], hidden, l == 0);
    int64_t total = offsets[sequences] - offsets[0], work = total * GATES * hidden * hidden * (2 * depth - 1);
    threads = std::max<int64_t>(1, std::min({threads, sequences, work / SHARE}));
    // Few slots where the longest sequence would outlive the others for long.
    int64_t filled = ceil_div(total, threads * length(order[0]));
    slots = std::min({ceil_div(filled, ROWS) * ROWS, ceil_div(sequences, threads), SLOTS});
  }

  int64_t length(int64_t sequence) const { return offsets[sequence + 1] - offsets[sequence]; }
};

template <class P>
struct Thread {
  typedef typename P::number number;

  struct Slot {
    int64_t sequence;
    const int32_t *word, *end;
  };

  Evaluation<P>& all;
  int64_t state_stride, operand_stride;  // of slots; not a power of two, so that rows share no cache set
  Array<float> states;
  Array<number> operands;
  std::vector<Slot> running;  // in the first slots
  int parity = 0;

  explicit Thread(Evaluation<P>& evaluation)
      : all(evaluation), state_stride(all.depth * all.padded + V), operand_stride(3 * all.depth * all.padded + 2 * V),
        states(array(all.slots * state_stride)), operands(array<number>(all.slots * operand_stride)) {}

  float* state(int64_t slot, int64_t layer) const { return &states[slot * state_stride + layer * all.padded]; }
  number* operand(int64_t slot, int64_t layer, int which) const {
    return &operands[slot * operand_stride + (layer * 3 + which) * all.padded];
  }

  void run() {
    Slot slot;
    while (int64_t(running.size()) < all.slots && take(&slot)) {
      running.push_back(slot);
      begin(running.size() - 1);
    }
    for (; !running.empty(); advance())
      for (int64_t layer = 0; layer < all.depth; layer++) step(layer);
  }

  bool take(Slot* slot) {
    int64_t i = all.taken++;
    if (i >= all.sequences) return false;
    int64_t sequence = all.order[i];
    *slot = {sequence, all.words + all.offsets[sequence], all.words + all.offsets[sequence + 1]};
    return true;
  }

  // The states before a sequence's first word.
  void begin(int64_t slot) {
    std::memset(state(slot, 0), 0, sizeof(float) * state_stride);
    std::memset(operand(slot, 0, 0), 0, sizeof(number) * operand_stride);
    if (!all.initial) return;
    for (int64_t layer = 0; layer < all.depth; layer++) {
      const float* from = all.initial + (running[slot].sequence * all.depth + layer) * all.hidden;
      std::memcpy(state(slot, layer), from, sizeof(float) * all.hidden);
      for (int64_t u = 0; u < all.hidden; u += V)
        store_rounded(operand(slot, layer, parity) + u, load(state(slot, layer) + u));
    }
  }

  void keep_trace(int64_t slot) const {
    float* to = all.trace + (running[slot].word - all.words) * all.depth * all.hidden;
    for (int64_t layer = 0; layer < all.depth; layer++, to += all.hidden)
      std::memcpy(to, state(slot, layer), sizeof(float) * all.hidden);
  }

  // To the next word; sequences that end give their slots to others.
  void advance() {
    parity ^= 1;
    for (int64_t i = running.size() - 1; i >= 0; i--) {
      if (all.trace) keep_trace(i);
      if (++running[i].word < running[i].end) continue;
      float* result = all.states + running[i].sequence * all.hidden;
      std::memcpy(result, state(i, all.depth - 1), sizeof(float) * all.hidden);
      if (take(&running[i])) {
        begin(i);
      } else {
        int64_t last = running.size() - 1;
        std::memmove(state(i, 0), state(last, 0), sizeof(float) * state_stride);
        std::memmove(operand(i, 0, 0), operand(last, 0, 0), sizeof(number) * operand_stride);
        running[i] = running[last];
        running.pop_back();
      }
    }
  }

  void step(int64_t layer) {
    const number *inputs[SLOTS], *previous[SLOTS];
    for (size_t i = 0; i < running.size(); i++) {
      inputs[i] = layer ? operand(i, layer - 1, all.between == NONE ? 1 - parity : 2) : nullptr;
      previous[i] = operand(i, layer, parity);
    }
    for (int64_t p = 0; p < all.panels; p++)
      each_tile(running.size(), [&](int64_t first, int64_t last) {
        vec sums[ROWS][GATES + 1];
        arguments<P, ROWS>(last - first, sums, inputs + first, previous + first, all.hidden, all.weights[layer].at(p));
        update(first, last - first, layer, p * V, sums);
      });
  }

  // Adds the table's part for the slot's word; that of its next word is ordered from memory.
  void look_up(const Slot& slot, int64_t unit, vec (&sums)[GATES + 1]) const {
    const float* row = all.table + *slot.word * GATES * all.hidden + unit;
    const int32_t* next = slot.word + (slot.word + 1 < slot.end);
    const float* next_row = all.table + *next * GATES * all.hidden + unit;
    for (int g = 0; g < GATES; g++) {
      sums[g] += load(row + g * all.hidden, all.hidden - unit);
      __builtin_prefetch(next_row + g * all.hidden, 0, 2);
    }
  }

  // How much of the way to its candidate a state goes: all of it or nothing where masks are given.
  vec share(const Slot& slot, int64_t layer, int64_t unit) const {
    if (!all.keep) return vec{} + all.update;
    int64_t row = all.keep_rows[slot.sequence] + (slot.word - all.words) - all.offsets[slot.sequence];
    return 1.0f - load_bytes(all.keep + (row * all.depth + layer) * all.hidden + unit, all.hidden - unit);
  }

  // In short loops: a long chain of instructions would leave the processor too few rows to work at.
  void update(int64_t first, int rows, int64_t layer, int64_t unit, vec (*sums)[GATES + 1]) const {
    float* h = state(first, layer) + unit;
    number *next = operand(first, layer, 1 - parity) + unit, *output = operand(first, layer, 2) + unit;
    for (int i = 0; i < rows; i++) {
      if (layer == 0) look_up(running[first + i], unit, sums[i]);
      sums[i][2] += sigmoid(sums[i][0]) * sums[i][3];
    }
    for (int i = 0; i < rows; i++) {
      float* at = h + i * state_stride;
      vec state = next_state(load(at), sums[i][1], sums[i][2], share(running[first + i], layer, unit));
      store(at, state);
      store_rounded(next + i * operand_stride, state);
    }
    if (all.between == NONE || layer + 1 == all.depth) return;
    for (int i = 0; i < rows; i++) {
      vec state = load(h + i * state_stride);
      store_rounded(output + i * operand_stride, all.between == TANH ? tanh_of_state(state) : relu(state));
    }
  }
};

template <class P>
void evaluate(const Stack& stack) {
  Evaluation<P> evaluation(stack);
  in_parallel(evaluation.threads, [&](int) { Thread<P>(evaluation).run(); });
}

}  // namespace

extern "C" {

// Lengths are 1 or more, words are rows of the table.
void gru_final_states(const Stack* stack, [[maybe_unused]] bool bfloat16) {
#ifdef __AVX512BF16__
  if (bfloat16) return evaluate<BFloat16>(*stack);
#endif
  evaluate<Float32>(*stack);
}
}
