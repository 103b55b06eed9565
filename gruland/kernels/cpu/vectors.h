// What the kernels share: vectors of floats, sigmoid and tanh, matrix products, memory and threads.
//
// A vector has V floats. A panel is the part of a weight matrix that a micro-kernel streams through; panel p of a
// GRU's matrix holds V hidden units, [depth][3 gates][V], so that all gates of a unit meet in registers and the state
// is written without an intermediate matrix. Micro-kernels multiply ROWS rows at once by a panel; rows are reached by
// pointers and are never copied.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>

// Runs a function in a team of threads; null where the process has no GNU (or compatible) OpenMP.
extern "C" void GOMP_parallel(void (*)(void*), void*, unsigned, unsigned) __attribute__((weak));
#endif

namespace {

#ifdef __linux__
const pid_t PROCESS = getpid();  // that loaded the library
#endif

#if defined(__AVX512F__)
constexpr int V = 16, ROWS = 8;  // 32 registers: 8 x 3 sums
#elif defined(__AVX__)
constexpr int V = 8, ROWS = 4;  // 16 registers: 4 x 3 sums
#elif defined(__aarch64__)
constexpr int V = 4, ROWS = 8;
#else
constexpr int V = 4, ROWS = 4;
#endif
// Of 16 registers the sums take 12, the panel's vectors 3, a row's number 1. GCC thinks that too many and loads the
// panel's vectors anew for each row; then loads, not products, would set the pace.
#if defined(__AVX__) && !defined(__AVX512F__)
#define IN_REGISTER(v) asm("" : "+x"(v))
#else
#define IN_REGISTER(v)
#endif
constexpr int GATES = 3, PANEL = GATES * V;
constexpr int64_t SHARE = 1 << 21;  // multiplications that are worth a thread

typedef float vec __attribute__((vector_size(4 * V)));
typedef int32_t ivec __attribute__((vector_size(4 * V)));
typedef float unaligned __attribute__((vector_size(4 * V), aligned(4), may_alias));

inline vec load(const float* p) { return *reinterpret_cast<const unaligned*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<unaligned*>(p) = v; }

// The first n of V floats; the others are zero.
inline vec load(const float* p, int64_t n) {
  if (n >= V) return load(p);
  vec v = {};
  std::memcpy(&v, p, sizeof(float) * n);
  return v;
}

// The first n of V bytes as floats.
inline vec load_bytes(const uint8_t* p, int64_t n) {
  float v[V] = {};
  if (n >= V)
    for (int i = 0; i < V; i++) v[i] = p[i];
  else
    for (int i = 0; i < n; i++) v[i] = p[i];
  return load(v);
}

inline void store(float* p, vec v, int64_t n) {
  if (n >= V) return store(p, v);
  std::memcpy(p, &v, sizeof(float) * n);
}

inline void store_rounded(float* p, vec v) { store(p, v); }
#ifdef __AVX512BF16__
inline void store_rounded(uint16_t* p, vec v) {
  __m256bh rounded = _mm512_cvtneps_pbh((__m512)v);
  std::memcpy(p, &rounded, sizeof(rounded));
}
#endif

// e^x: 2^f by a polynomial with a relative error of 2e-9 before rounding, times 2^i. x is clamped to where the
// result is a normal number, or to a smaller bound; the comparisons let NaN through.
inline vec exp(vec x, float bound = 87.0f) {
  constexpr float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, in the lowest bits
  x = x < -bound ? vec{} - bound : x;
  x = x > bound ? vec{} + bound : x;
  vec scaled = x * 1.44269504f, shifted = scaled + shift, f = scaled - (shifted - shift);
  vec p = f * 1.5345812e-4f + 1.3399931e-3f;
  p = p * f + 9.6184891e-3f;
  p = p * f + 5.5503286e-2f;
  p = p * f + 2.4022646e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  return p * (vec)(((ivec)shifted + 127) << 23);
}

inline vec sigmoid(vec x) { return 1.0f / (1.0f + exp(-x)); }

inline vec tanh(vec x) {
  vec e = exp(-2.0f * x);
  return (1.0f - e) / (1.0f + e);
}

// What a matrix product multiplies; sums are float32. A panel holds PACK consecutive steps of the depth beside each
// other: [depth / PACK][C][V][PACK]. Rows of an odd depth end with a zero in bfloat16.
struct Float32 {
  typedef float number;
  static constexpr int PACK = 1;
  static number round(float x) { return x; }
  static vec multiply_add(vec sum, const float* a, vec b) { return sum + *a * b; }
};

struct BFloat16 {
  typedef uint16_t number;
  static constexpr int PACK = 2;
  // To the nearest, ties to even; NaN stays one.
  static number round(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return x != x ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  }
#ifdef __AVX512BF16__
  static vec multiply_add(vec sum, const uint16_t* a, vec b) {
    int32_t pair;
    std::memcpy(&pair, a, 4);
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)b);
  }
#endif
};

// sums[i] += a[i][0:depth] * panel, of panel [depth / PACK][C][V][PACK]; sums are in registers.
template <class P, int R, int C>
__attribute__((always_inline)) inline void accumulate(vec (&sums)[R][C], const typename P::number* const* a,
                                                      int64_t depth, const typename P::number* panel) {
  const typename P::number* row[R];
#pragma GCC unroll 8
  for (int i = 0; i < R; i++) row[i] = a[i];
  for (int64_t k = 0; k < depth; k += P::PACK, panel += C * V * P::PACK) {
    vec b[C];
#pragma GCC unroll 3
    for (int c = 0; c < C; c++) {
      b[c] = load(reinterpret_cast<const float*>(panel + c * V * P::PACK));
      IN_REGISTER(b[c]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 3
      for (int c = 0; c < C; c++) sums[i][c] = P::multiply_add(sums[i][c], row[i] + k, b[c]);
    }
  }
}

// Micro-kernel: accumulates into sums in memory, for the first `rows` rows.
template <class P, int R, int C>
void multiply(int rows, vec (*sums)[C], const typename P::number* const* a, int64_t depth,
              const typename P::number* panel) {
  if constexpr (R > 1)
    if (rows < R) return multiply<P, R - 1, C>(rows, sums, a, depth, panel);
  vec s[R][C];
#pragma GCC unroll 8
  for (int i = 0; i < R; i++) {
#pragma GCC unroll 3
    for (int c = 0; c < C; c++) s[i][c] = sums[i][c];
  }
  accumulate<P, R, C>(s, a, depth, panel);
#pragma GCC unroll 8
  for (int i = 0; i < R; i++) {
#pragma GCC unroll 3
    for (int c = 0; c < C; c++) sums[i][c] = s[i][c];
  }
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Calls f(begin, end) for the parts of n rows that micro-kernels take at once, as equal as possible.
template <class F>
void each_tile(int64_t n, F f) {
  int64_t tiles = ceil_div(n, ROWS);
  for (int64_t i = 0; i < tiles; i++) f(n * i / tiles, n * (i + 1) / tiles);
}

// Calls f(0), ..., f(count - 1), none of which waits for another, side by side: in the threads of PyTorch's OpenMP,
// which spin for milliseconds after each of its own operations and would take the processors from any others. In a
// forked process these are gone: there, and without OpenMP, threads are started that end with the call.
template <class F>
void in_parallel(int count, F f) {
  std::atomic<int> next{0};
  auto work = [&] {
    for (int q; (q = next++) < count;) f(q);
  };
#ifdef __linux__
  if (count > 1 && GOMP_parallel && getpid() == PROCESS)
    return GOMP_parallel([](void* f) { (*static_cast<decltype(work)*>(f))(); }, &work, count, 0);
#endif
  std::vector<std::thread> threads;
  for (int q = 1; q < count; q++) try {
      threads.emplace_back(work);
    } catch (const std::system_error&) {  // the system grants no more threads
      break;
    }
  work();
  for (auto& thread : threads) thread.join();
}

struct Free {
  void operator()(void* p) const { ::operator delete[](p, std::align_val_t(64)); }
};
template <class N>
using Array = std::unique_ptr<N[], Free>;

template <class N = float>
Array<N> array(int64_t n) {
  return Array<N>(new (std::align_val_t(64)) N[n]);
}

template <class N = float>
Array<N> zeros(int64_t n) {
  Array<N> p = array<N>(n);
  std::memset(p.get(), 0, sizeof(N) * n);
  return p;
}

// Memory of many megabytes is new in every call; its first use costs a quarter of the time with huge pages.
inline void use_huge_pages([[maybe_unused]] float* p, [[maybe_unused]] int64_t n) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t page = 1 << 21;
  uintptr_t first = (reinterpret_cast<uintptr_t>(p) + page - 1) / page * page;
  uintptr_t last = reinterpret_cast<uintptr_t>(p + n) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// weight [3 H, depth] -> [panel][depth / PACK][3][V][PACK], zero beyond H and depth.
template <class P = Float32>
Array<typename P::number> pack_forward(const float* weight, int64_t hidden, int64_t depth) {
  int64_t panels = ceil_div(hidden, V), packs = ceil_div(depth, P::PACK);
  auto packed = zeros<typename P::number>(panels * packs * PANEL * P::PACK);
  for (int64_t gate = 0; gate < GATES; gate++)
    for (int64_t unit = 0; unit < hidden; unit++) {
      const float* from = weight + (gate * hidden + unit) * depth;
      auto* to = packed.get() + (unit / V * packs * PANEL + gate * V + unit % V) * P::PACK;
      for (int64_t k = 0; k < depth; k++) to[k / P::PACK * PANEL * P::PACK + k % P::PACK] = P::round(from[k]);
    }
  return packed;
}

// bias [3 H] -> [panel][3][V], zero beyond H.
inline Array<float> pack_bias(const float* bias, int64_t hidden) { return pack_forward(bias, hidden, 1); }

}  // namespace
