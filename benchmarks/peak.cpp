// The most multiplications that a core can do: chains of multiply-adds that touch no memory.
//
// peak_*(rounds) carries CHAINS independent sums through `rounds` multiply-adds each and returns how many floating
// point operations that was (a multiplication and an addition are two), 0 where the processor lacks the instruction.

#include <cstdint>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int V = 16, CHAINS = 24;
#elif defined(__AVX__)
constexpr int V = 8, CHAINS = 12;
#elif defined(__aarch64__)
constexpr int V = 4, CHAINS = 24;
#else
constexpr int V = 4, CHAINS = 12;
#endif

typedef float vec __attribute__((vector_size(4 * V)));

namespace {

// Read and written in ways that no compiler may foresee, so that the work cannot be dropped.
volatile float factor = 0.999f, sink;

template <class F>
void carry(int64_t rounds, F multiply_add) {
  vec sums[CHAINS];
  for (int i = 0; i < CHAINS; i++) sums[i] = vec{} + (factor + i);
  for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++) sums[i] = multiply_add(sums[i]);
  }
  float total = 0;
  for (int i = 0; i < CHAINS; i++) total += sums[i][0];
  sink = total;
}

}  // namespace

extern "C" int64_t peak_float32(int64_t rounds) {
  vec a = vec{} + factor, b = vec{} + 1e-3f * factor;
  carry(rounds, [=](vec sum) { return a * sum + b; });
  return rounds * CHAINS * V * 2;
}

extern "C" int64_t peak_bfloat16(int64_t rounds) {
#ifdef __AVX512BF16__
  __m512 f = (__m512)(vec{} + factor);
  __m512bh a = (__m512bh)_mm512_cvtne2ps_pbh(f, f);
  carry(rounds, [=](vec sum) { return (vec)_mm512_dpbf16_ps((__m512)sum, a, a); });
  return rounds * CHAINS * V * 4;
#else
  (void)rounds;
  return 0;
#endif
}
