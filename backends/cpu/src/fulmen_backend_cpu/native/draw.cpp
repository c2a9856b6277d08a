// Drawing tokens from the softmax of logits, as `fulmen_core.softmax_draw` describes it: tokens in blocks of 64, block b
// has the tokens b, b + B, b + 2B, ..., the cumulative distribution of blocks is inverted, then that within one block.
// Weights and a block's sum are float32, what is cumulated is float64, in the same order as there.
//
// Legend: V vocabulary, B blocks.
#include "model.hpp"

namespace fulmen {
namespace {

constexpr int BLOCK_TOKENS = 64;
constexpr uint32_t INFINITE = 0x7f800000u;  // the bits of infinity; beyond are those of NaN

// The largest of some logits, as bits too: `widest` is the largest magnitude, NaN being more than infinity.
struct Largest {
    float top;
    uint32_t widest;
};

Largest largest_of(const float* logits, int count) {
    constexpr int CHAINS = 4;  // a maximum waits for the one before
    f32x16 most[CHAINS];
    u32x16 widest[CHAINS]{};
    for (f32x16& chain : most) chain = splat(-INFINITY);
    auto take = [&](int chain, f32x16 x) {
        const u32x16 bits = (u32x16)x & 0x7fffffffu;
        widest[chain] = bits > widest[chain] ? bits : widest[chain];
        most[chain] = maximum(most[chain], x);
    };
    int i = 0;
    for (; i + CHAINS * LANES <= count; i += CHAINS * LANES)
        for (int chain = 0; chain < CHAINS; chain++) take(chain, load_f32(logits + i + chain * LANES));
    for (; i < count; i += LANES) {
        float lanes[LANES];
        for (int lane = 0; lane < LANES; lane++) lanes[lane] = i + lane < count ? logits[i + lane] : logits[i];
        take(0, load_f32(lanes));
    }
    Largest found{-INFINITY, 0};
    for (int chain = 0; chain < CHAINS; chain++) {
        found.top = std::fmax(found.top, largest(most[chain]));
        uint32_t lanes[LANES];
        store(lanes, widest[chain]);
        for (uint32_t bits : lanes) found.widest = std::max(found.widest, bits);
    }
    return found;
}

// The largest logit, and the lowest index of it; -1 if one is NaN or the largest is not finite.
float top_of(const float* logits, int count, int& index) {
    constexpr int STRETCH = 1024;
    float top = -INFINITY;
    int begin = 0;
    index = -1;
    for (int i = 0; i < count; i += STRETCH) {
        const Largest found = largest_of(logits + i, std::min(STRETCH, count - i));
        if (found.widest > INFINITE) return top;
        if (found.top > top) top = found.top, begin = i;
    }
    if (!std::isfinite(top)) return top;
    index = begin;
    while (logits[index] != top) index++;
    return top;
}

struct Softmax {
    const float* logits;
    int count, blocks;
    float top, inverse_temperature;

    f32x16 weights(f32x16 x) const { return exponential((x - top) * inverse_temperature); }
    float weight(int token) const {
        float lanes[LANES];
        store(lanes, weights(splat(logits[token])));
        return lanes[0];
    }
};

void sum_blocks(const Softmax& s, float* sums) {
    std::memset(sums, 0, sizeof(float) * s.blocks);
    for (int first = 0; first < s.count; first += s.blocks) {
        const int here = std::min(s.blocks, s.count - first);
        int b = 0;
        for (; b + LANES <= here; b += LANES) store(sums + b, load_f32(sums + b) + s.weights(load_f32(s.logits + first + b)));
        for (; b < here; b++) sums[b] += s.weight(first + b);
    }
}

// The place in whose share of the sum `number` of [0, 1) lies; `number` becomes how far into that share.
int invert(const float* weights, int count, double& number) {
    double total = 0;
    for (int i = 0; i < count; i++) total += weights[i];
    const double target = std::fmin(number * total, std::nextafter(total, 0.0));
    double before = 0;
    int place = 0;
    while (before + weights[place] <= target) before += weights[place++];
    number = std::fmin(std::fmax((target - before) / weights[place], 0.0), 1.0);
    return place;
}

int draw_row(const float* logits, int count, float inverse_temperature, double uniform, float* sums) {
    int likeliest = -1;
    const float top = top_of(logits, count, likeliest);
    if (likeliest < 0 || inverse_temperature == 0) return likeliest;
    const Softmax softmax{logits, count, (count + BLOCK_TOKENS - 1) / BLOCK_TOKENS, top, inverse_temperature};
    sum_blocks(softmax, sums);
    const int block = invert(sums, softmax.blocks, uniform);
    float weights[BLOCK_TOKENS] = {};
    for (int j = 0, token = block; token < count; j++, token += softmax.blocks) weights[j] = softmax.weight(token);
    return block + invert(weights, BLOCK_TOKENS, uniform) * softmax.blocks;
}

}  // namespace

void draw(Model& m, int rows, const float* logits, const float* inverse_temperatures, const double* uniforms, int32_t* tokens) {
    const int count = m.shape.vocab, blocks = (count + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    auto one = [&](int row, int worker) {
        float* sums = m.block_sums.data() + (size_t)worker * blocks;
        tokens[row] = draw_row(logits + (size_t)row * count, count, inverse_temperatures[row], uniforms[row], sums);
    };
    if (rows == 1)
        one(0, 0);
    else
        m.pool->run(rows, one);
}

}  // namespace fulmen
