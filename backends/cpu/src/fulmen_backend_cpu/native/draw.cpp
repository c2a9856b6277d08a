// Drawing tokens from the softmax of logits, as `fulmen_core.softmax_draw` describes it: tokens in blocks of 64, block b
// has the tokens b, b + B, b + 2B, ..., the cumulative distribution of blocks is inverted, then that within one block.
// Weights and a block's sum are float32, what is cumulated is float64, in the same order as there.
//
// The largest logit is found by that of each stretch of 64 tokens, which the product that makes logits notes on the way.
//
// Legend: V vocabulary, B blocks.
#include "model.hpp"

namespace fulmen {
namespace {

constexpr int BLOCK_TOKENS = 64, STRETCH = 64;
constexpr uint32_t INFINITE = 0x7f800000u;  // the bits of infinity; beyond are those of NaN

// The largest of some logits; infinite if one is NaN.
float largest_of(const float* logits, int count) {
    f32x16 most = splat(-INFINITY);
    auto take = [&](f32x16 x) { most = maximum(most, ((u32x16)x & 0x7fffffffu) > INFINITE ? splat(INFINITY) : x); };
    int i = 0;
    for (; i + LANES <= count; i += LANES) take(load_f32(logits + i));
    if (i < count) {
        float lanes[LANES];
        for (int lane = 0; lane < LANES; lane++) lanes[lane] = logits[std::min(i + lane, count - 1)];
        take(load_f32(lanes));
    }
    return largest(most);
}

// The lowest index of the largest logit, by the largest of each stretch; -1 if that is not finite.
int likeliest_of(const float* logits, const float* tops, int stretches) {
    const float top = largest_of(tops, stretches);
    if (!std::isfinite(top)) return -1;
    int stretch = 0;
    while (tops[stretch] != top) stretch++;
    int index = stretch * STRETCH;
    while (logits[index] != top) index++;
    return index;
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

int draw_row(const float* logits, const float* tops, int count, float inverse_temperature, double uniform, float* sums) {
    const int likeliest = likeliest_of(logits, tops, (count + STRETCH - 1) / STRETCH);
    if (likeliest < 0 || inverse_temperature == 0) return likeliest;
    const Softmax softmax{logits, count, (count + BLOCK_TOKENS - 1) / BLOCK_TOKENS, logits[likeliest], inverse_temperature};
    sum_blocks(softmax, sums);
    const int block = invert(sums, softmax.blocks, uniform);
    float weights[BLOCK_TOKENS] = {};
    for (int j = 0, token = block; token < count; j++, token += softmax.blocks) weights[j] = softmax.weight(token);
    return block + invert(weights, BLOCK_TOKENS, uniform) * softmax.blocks;
}

}  // namespace

void logits_product(Model& m, const Rows& x, int rows, float* logits) {
    const Matrix& w = m.head;
    const Division division(w.panels, rows, m.pool->threads());
    const int stretches = (w.outputs + STRETCH - 1) / STRETCH;
    std::fill_n(m.tops.begin(), (size_t)rows * stretches, -INFINITY);
    m.pool->run(division.tasks(), [&](int index, int) {
        division.task(index, [&](int panel, int panels, int first_row, int count) {  // whole stretches
            multiply(w, panel, panels, x, first_row, count, [&](int r, int n, int column, int columns, const float* block, int stride) {
                const int valid = std::min(columns, w.outputs - column);
                for (int i = 0; i < n && valid > 0; i++) {
                    const float* from = block + (size_t)i * stride;
                    const size_t row = first_row + r + i;
                    std::memcpy(logits + row * w.outputs + column, from, sizeof(float) * valid);
                    for (int c = 0; c < valid; c += STRETCH) {
                        float& top = m.tops[row * stretches + (column + c) / STRETCH];
                        top = std::fmax(top, largest_of(from + c, std::min(STRETCH, valid - c)));
                    }
                }
            });
        });
    });
}

void draw(Model& m, int rows, const float* logits, bool known, const float* inverse_temperatures, const double* uniforms, int32_t* tokens) {
    const int count = m.shape.vocab, blocks = (count + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
    auto one = [&](int row, int worker) {
        float* sums = m.block_sums.data() + (size_t)worker * blocks;
        const float* of_row = logits + (size_t)row * count;
        const float* tops = m.tops.data() + (size_t)row * blocks;
        if (!known) {
            for (int b = 0; b < blocks; b++) sums[b] = largest_of(of_row + (size_t)b * STRETCH, std::min(STRETCH, count - b * STRETCH));
            tops = sums;
        }
        tokens[row] = draw_row(of_row, tops, count, inverse_temperatures[row], uniforms[row], sums);
    };
    if (rows == 1)
        one(0, 0);
    else
        m.pool->run(rows, one);
}

}  // namespace fulmen
