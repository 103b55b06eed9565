// Bernoulli masks from a counter, Philox4x32-10 (Salmon et al. 2011): the same numbers as gruland/kernels/philox.py.
//
// The counter of an output is (unit, key's low half, time / 8, key's high half), its key the seed's two halves; its
// four words are the draws of 8 time steps, 16 bits each, the lower half of the first word first.

#include <algorithm>
#include <cstdint>

namespace {

constexpr int LANES = 32;  // units that go through the rounds side by side: the compiler makes vectors of them
constexpr int ROUNDS = 10;
constexpr int STEPS = 8;  // time steps that one output serves

// words[j][i] is word j of the output for unit first + i.
void philox(uint64_t seed, uint32_t first, uint32_t low, uint32_t block, uint32_t high, uint32_t words[4][LANES]) {
    for (int i = 0; i < LANES; ++i) {
        words[0][i] = first + i;
        words[1][i] = low;
        words[2][i] = block;
        words[3][i] = high;
    }
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < ROUNDS; ++round) {
        for (int i = 0; i < LANES; ++i) {
            const uint64_t a = static_cast<uint64_t>(words[0][i]) * 0xD2511F53u;
            const uint64_t b = static_cast<uint64_t>(words[2][i]) * 0xCD9E8D57u;
            words[0][i] = static_cast<uint32_t>(b >> 32) ^ words[1][i] ^ key0;
            words[2][i] = static_cast<uint32_t>(a >> 32) ^ words[3][i] ^ key1;
            words[1][i] = static_cast<uint32_t>(b);
            words[3][i] = static_cast<uint32_t>(a);
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

}  // namespace

// mask[t][b][j] = 1 where the draw of (seed, keys[b], t, j) is below the threshold, of 65,536.
extern "C" void gru_bernoulli(uint64_t seed, uint32_t threshold, int64_t steps, int64_t sequences, int64_t units,
                              const int64_t* keys, uint8_t* mask) {
    uint32_t words[4][LANES];
    for (int64_t start = 0; start < steps; start += STEPS) {
        const int64_t served = std::min<int64_t>(STEPS, steps - start);
        for (int64_t b = 0; b < sequences; ++b) {
            const uint32_t low = static_cast<uint32_t>(keys[b]), high = static_cast<uint32_t>(keys[b] >> 32);
            for (int64_t unit = 0; unit < units; unit += LANES) {
                philox(seed, static_cast<uint32_t>(unit), low, static_cast<uint32_t>(start / STEPS), high, words);
                const int64_t wide = std::min<int64_t>(LANES, units - unit);
                for (int64_t step = 0; step < served; ++step) {
                    const uint32_t* word = words[step / 2];
                    const int shift = step % 2 ? 16 : 0;
                    uint8_t* row = mask + ((start + step) * sequences + b) * units + unit;
                    uint8_t below[LANES];
                    for (int i = 0; i < LANES; ++i) below[i] = ((word[i] >> shift) & 0xFFFFu) < threshold;
                    std::copy_n(below, wide, row);
                }
            }
        }
    }
}
