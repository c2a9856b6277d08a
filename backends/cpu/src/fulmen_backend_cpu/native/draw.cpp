// Drawing tokens from the softmax of logits, as `fulmen_core.softmax_draw` describes it: the cumulative distribution of
// stretches of 32 tokens is inverted, then that within one stretch. Weights are float32, what is cumulated is float64.
//
// The product that makes logits notes the largest of each stretch while it is at hand, and its sum of exponentials if the
// draw before wanted such: then little of the logits is read again. The results are the same bits either way.
#include <algorithm>

#include "model.hpp"

namespace fulmen {
namespace {

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

// The lowest index of the largest logit; -1 if that is not finite.
int likeliest_of(const float* logits, const float* tops, int several) {
    const float top = largest_of(tops, several);
    if (!std::isfinite(top)) return -1;
    int index = (int)(std::find(tops, tops + several, top) - tops) * STRETCH;
    while (logits[index] != top) index++;
    return index;
}

// exp((x - top) * inverse_temperature), added up.
float weight_of(const float* logits, int count, float top, float inverse_temperature) {
    f32x16 sums{};
    int i = 0;
    for (; i + LANES <= count; i += LANES) sums += exponential((load_f32(logits + i) - top) * inverse_temperature);
    if (i < count) {
        float lanes[LANES];
        for (int lane = 0; lane < LANES; lane++) lanes[lane] = i + lane < count ? logits[i + lane] : -INFINITY;
        sums += exponential((load_f32(lanes) - top) * inverse_temperature);
    }
    return sum(sums);
}

void note_stretch(const float* logits, int count, float inverse_temperature, const Stretches& to, int index) {
    const float top = largest_of(logits, count);
    to.tops[index] = top;
    to.weights[index] = std::isfinite(top) && inverse_temperature != 0 ? weight_of(logits, count, top, inverse_temperature) : 0;
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

// Several times to[i] = exp((x[i] - most) * inverse_temperature) * weights[i]; what is beyond is zero, up to whole lanes.
void fade(const float* x, const float* weights, int count, float most, float inverse_temperature, float* to) {
    for (int i = 0; i < count; i += LANES) {
        float lanes[LANES];
        for (int lane = 0; lane < LANES; lane++) lanes[lane] = i + lane < count ? x[i + lane] : -INFINITY;
        const f32x16 faded = exponential((load_f32(lanes) - most) * inverse_temperature);
        store(to + i, weights ? faded * load_f32(weights + i) : faded);
    }
}

int draw_row(const float* logits, const Stretches& s, int count, float inverse_temperature, double uniform, float* weights) {
    const int several = (count + STRETCH - 1) / STRETCH;
    const int likeliest = likeliest_of(logits, s.tops, several);
    if (likeliest < 0 || inverse_temperature == 0) return likeliest;
    const float most = logits[likeliest];
    fade(s.tops, s.weights, several, most, inverse_temperature, weights);
    const int stretch = invert(weights, several, uniform), first = stretch * STRETCH;
    float of_tokens[STRETCH] = {};
    fade(logits + first, nullptr, std::min(STRETCH, count - first), most, inverse_temperature, of_tokens);
    return first + invert(of_tokens, STRETCH, uniform);
}

}  // namespace

void logits_product(Model& m, const Rows& x, int rows, float* logits) {
    const Matrix& w = m.head;
    const Division division(w.panels, rows, m.pool->threads());
    m.weighed = m.draws;
    const float inverse_temperature = m.weighed ? 1 : 0;
    m.pool->run(division.tasks(), [&](int index, int) {
        division.task(index, [&](int panel, int panels, int first_row, int count) {
            multiply(w, panel, panels, x, first_row, count, [&](int r, int n, int column, int columns, const float* block, int stride) {
                const int valid = std::min(columns, w.outputs - column);  // whole stretches, but for the last
                for (int i = 0; i < n && valid > 0; i++) {
                    const float* from = block + (size_t)i * stride;
                    const size_t row = first_row + r + i;
                    std::memcpy(logits + row * w.outputs + column, from, sizeof(float) * valid);
                    const Stretches of_row{m.stretch_tops + row * m.row_stretches, m.stretch_weights + row * m.row_stretches};
                    for (int c = 0; c < valid; c += STRETCH)
                        note_stretch(from + c, std::min(STRETCH, valid - c), inverse_temperature, of_row, (column + c) / STRETCH);
                }
            });
        });
    });
}

void draw(Model& m, int rows, const float* logits, bool known, const float* inverse_temperatures, const double* uniforms, int32_t* tokens) {
    const int count = m.shape.vocab, several = (count + STRETCH - 1) / STRETCH;
    auto one = [&](int row, int worker) {
        const float* of_row = logits + (size_t)row * count;
        const float inverse = inverse_temperatures[row];
        const Stretches own{m.draw_tops + (size_t)worker * m.row_stretches, m.draw_weights + (size_t)worker * m.row_stretches};
        Stretches of{m.stretch_tops + (size_t)row * m.row_stretches, m.stretch_weights + (size_t)row * m.row_stretches};
        if (!known || !(inverse == 0 || (inverse == 1 && m.weighed))) {
            for (int b = 0; b < several; b++) note_stretch(of_row + (size_t)b * STRETCH, std::min(STRETCH, count - b * STRETCH), inverse, own, b);
            of = own;
        }
        tokens[row] = draw_row(of_row, of, count, inverse, uniforms[row], own.weights);
    };
    if (rows == 1)
        one(0, 0);
    else
        m.pool->run(rows, one);
    m.draws = std::find(inverse_temperatures, inverse_temperatures + rows, 1.0f) != inverse_temperatures + rows;
}

}  // namespace fulmen
