// The experts of a layer, forward and backward, in blocks of rows: each is gathered, multiplied, passed through SwiGLU and
// multiplied again while it is in the cache; blocks are what threads share.
//
// Legend: N tokens, K experts a token, M = N*K pairs, E experts, D width, F expert width, G = 2F (gate, then up), R rows
// sorted by expert, each expert's an even number, filler is zero.
#pragma once

#include "experts.hpp"
#include "panels.hpp"

namespace fulmen {

struct ExpertSizes {
    int64_t experts, width, inner, top_k;
    int64_t outer() const { return 2 * inner; }
};

struct Span {
    int64_t expert, first, rows;
};

constexpr int64_t BLOCK_ROWS = 96;

// Rows of every expert, in blocks as even as can be.
inline std::vector<Span> blocks_of(const int32_t* ends_E, int64_t experts) {
    std::vector<Span> blocks;
    for (int64_t e = 0, first = 0; e < experts; first = ends_E[e++]) {
        const int64_t rows = ends_E[e] - first;
        if (rows == 0) continue;
        const int64_t each = round_up(detail::even_part((int)rows, BLOCK_ROWS), 2);
        for (int64_t r = 0; r < rows; r += each) blocks.push_back({e, first + r, std::min(each, rows - r)});
    }
    return blocks;
}

// Experts that have rows.
inline std::vector<Span> spans_of(const int32_t* ends_E, int64_t experts) {
    std::vector<Span> spans;
    for (int64_t e = 0, first = 0; e < experts; first = ends_E[e++])
        if (ends_E[e] > first) spans.push_back({e, first, ends_E[e] - first});
    return spans;
}

// One expert's two weights [G, D] and [F, D] in panels: for the products of the forward pass (x, then hidden units), or of
// the backward pass (the gradient of y, then that of gate and up).
inline void pack_weights(bool backward, const float* gate_up_GD, const float* down_FD, const ExpertSizes& s, uint16_t* gate_up,
                         uint16_t* down) {
    const auto by_columns_of = [&](const float* rows, int64_t count, uint16_t* out) {
        for (int64_t r = 0; r < count; r += LANES) panel_of_columns(rows + r * s.width, s.width, s.width / 2, out + r * s.width);
    };
    const auto by_rows_of = [&](const float* rows, int64_t count, uint16_t* out) {
        panels_of_rows(rows, s.width, count / 2, (int)s.width, out, count * LANES);
    };
    if (backward) {
        by_rows_of(gate_up_GD, s.outer(), gate_up);
        by_columns_of(down_FD, s.inner, down);
    } else {
        by_columns_of(gate_up_GD, s.outer(), gate_up);
        by_rows_of(down_FD, s.inner, down);
    }
}

inline void pack_all_weights(bool backward, const float* gate_up_EGD, const float* down_EFD, const std::vector<Span>& spans,
                             const ExpertSizes& s, uint16_t* gate_up, uint16_t* down, int threads) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (size_t i = 0; i < spans.size(); i++) {
        const int64_t g = spans[i].expert * s.outer() * s.width, d = spans[i].expert * s.inner * s.width;
        pack_weights(backward, gate_up_EGD + g, down_EFD + d, s, gate_up + g, down + d);
    }
}

template <class X>
void gather_block(const X* x_ND, const int32_t* pair, const ExpertSizes& s, int64_t rows, uint16_t* out) {
    for (int64_t r = 0; r < rows; r++) {
        uint16_t* to = out + r * s.width;
        if (pair[r] < 0)
            std::fill(to, to + s.width, uint16_t(0));
        else
            for (int64_t d = 0; d < s.width; d += LANES) put(to + d, get(x_ND + pair[r] / s.top_k * s.width + d));
    }
}

inline void round_block(const float* block, int64_t count, uint16_t* out) {
    for (int64_t i = 0; i < count; i += LANES) put(out + i, load_f32(block + i));
}

// What a thread computes a block in.
struct BlockMemory {
    std::vector<float> sums;
    std::vector<uint16_t> x, grad, hidden;
    explicit BlockMemory(const ExpertSizes& s)
        : sums(BLOCK_ROWS * std::max(s.width, s.outer())), x(BLOCK_ROWS * s.width), grad(BLOCK_ROWS * s.width), hidden(BLOCK_ROWS * s.inner) {}
};

// y_RD, and gate_up_RG for the backward pass. `gate_up` and `down` are room for the weights in panels.
template <class X>
void experts_forward(const X* x_ND, const float* gate_up_EGD, const float* down_EFD, const int32_t* ends_E, const int32_t* pair_R,
                     const float* weight_M, const ExpertSizes& s, uint16_t* gate_up, uint16_t* down, uint16_t* gate_up_RG, uint16_t* y_RD,
                     int threads) {
    pack_all_weights(false, gate_up_EGD, down_EFD, spans_of(ends_E, s.experts), s, gate_up, down, threads);
    const std::vector<Span> blocks = blocks_of(ends_E, s.experts);
#pragma omp parallel num_threads(threads)
    {
        BlockMemory memory(s);
        float* sums = memory.sums.data();
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < blocks.size(); i++) {
            const auto [expert, first, rows] = blocks[i];
            const int32_t* pair = pair_R + first;
            uint16_t* gate_up_block = gate_up_RG + first * s.outer();
            gather_block(x_ND, pair, s, rows, memory.x.data());
            multiply(by_rows(memory.x.data(), s.width), (int)rows, gate_up + expert * s.outer() * s.width, (int)s.outer() / LANES,
                     s.width / 2, s.width * LANES, sums, s.outer());
            round_block(sums, rows * s.outer(), gate_up_block);
            swiglu_forward(gate_up_block, pair, weight_M, memory.hidden.data(), rows, (int)s.inner, 1);
            multiply(by_rows(memory.hidden.data(), s.inner), (int)rows, down + expert * s.inner * s.width, (int)s.width / LANES,
                     s.inner / 2, s.inner * LANES, sums, s.width);
            round_block(sums, rows * s.width, y_RD + first * s.width);
        }
    }
}

// The four matrices of all rows that weights' gradients are products of, in panels, expert after expert.
struct Kept {
    uint16_t *x, *grad, *hidden, *grad_gate_up;
};

template <class X>
void experts_backward_rows(const float* grad_ND, const X* x_ND, const float* gate_up_EGD, const float* down_EFD, const int32_t* ends_E,
                           const int32_t* pair_R, const float* weight_M, const uint16_t* gate_up_RG, const ExpertSizes& s,
                           uint16_t* gate_up, uint16_t* down, const Kept& kept, uint16_t* grad_x_RD, float* grad_weight_M, int threads) {
    const std::vector<Span> spans = spans_of(ends_E, s.experts);
    pack_all_weights(true, gate_up_EGD, down_EFD, spans, s, gate_up, down, threads);
    std::vector<Span> of_expert(s.experts);
    for (const Span& span : spans) of_expert[span.expert] = span;
    const std::vector<Span> blocks = blocks_of(ends_E, s.experts);
#pragma omp parallel num_threads(threads)
    {
        BlockMemory memory(s);
        std::vector<uint16_t> rounded(BLOCK_ROWS * s.inner), grad_gate_up(BLOCK_ROWS * s.outer());
        float* sums = memory.sums.data();
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < blocks.size(); i++) {
            const auto [expert, first, rows] = blocks[i];
            const int32_t* pair = pair_R + first;
            const Span& all = of_expert[expert];
            // Where this block's pairs of rows begin in the first panel of a matrix with so many columns.
            const auto keep = [&, first = first, rows = rows](const uint16_t* block, int64_t columns, uint16_t* to) {
                panels_of_rows(block, columns, rows / 2, (int)columns, to + all.first * columns + (first - all.first) * LANES,
                               all.rows * LANES);
            };
            gather_block(grad_ND, pair, s, rows, memory.grad.data());
            multiply(by_rows(memory.grad.data(), s.width), (int)rows, down + expert * s.inner * s.width, (int)s.inner / LANES, s.width / 2,
                     s.width * LANES, sums, s.inner);
            round_block(sums, rows * s.inner, rounded.data());
            swiglu_backward(rounded.data(), gate_up_RG + first * s.outer(), pair, weight_M, grad_gate_up.data(), memory.hidden.data(),
                            grad_weight_M, rows, (int)s.inner, 1);
            multiply(by_rows(grad_gate_up.data(), s.outer()), (int)rows, gate_up + expert * s.outer() * s.width, (int)s.width / LANES,
                     s.inner, s.outer() * LANES, sums, s.width);
            round_block(sums, rows * s.width, grad_x_RD + first * s.width);
            gather_block(x_ND, pair, s, rows, memory.x.data());
            keep(memory.x.data(), s.width, kept.x);
            keep(memory.grad.data(), s.width, kept.grad);
            keep(memory.hidden.data(), s.inner, kept.hidden);
            keep(grad_gate_up.data(), s.outer(), kept.grad_gate_up);
        }
    }
}

// left transposed times right, [L, C], of columns in panels of so many pairs of rows.
inline void multiply_transposed(const uint16_t* left, int64_t lefts, const uint16_t* right, int64_t columns, int64_t pairs, float* out,
                                int64_t stride) {
    constexpr int64_t STEP = 128;  // pairs: with so many, a strip of both stays in the second cache
    for (int64_t k = 0; k < pairs; k += STEP)
        for (int64_t l = 0; l < lefts; l += LANES)
            multiply(by_columns(left + l * 2 * pairs + k * 2 * LANES), LANES, right + k * 2 * LANES, (int)columns / LANES,
                     std::min(STEP, pairs - k), pairs * 2 * LANES, out + l * stride, stride, k > 0);
}

inline void experts_backward_weights(const Kept& kept, const int32_t* ends_E, const ExpertSizes& s, float* grad_gate_up_EGD,
                                     float* grad_down_EFD, int threads) {
    const int64_t strips = (s.width + 4 * LANES - 1) / (4 * LANES);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t i = 0; i < s.experts * strips; i++) {
        const int64_t expert = i / strips, column = i % strips * 4 * LANES;
        const int64_t first = expert ? ends_E[expert - 1] : 0, rows = ends_E[expert] - first;
        const int64_t columns = std::min<int64_t>(4 * LANES, s.width - column);
        const auto gradient = [&](const uint16_t* left, int64_t lefts, const uint16_t* right, float* out_ELD) {
            float* out = out_ELD + expert * lefts * s.width + column;
            if (rows == 0)
                for (int64_t l = 0; l < lefts; l++) std::fill(out + l * s.width, out + l * s.width + columns, 0.0f);
            else
                multiply_transposed(left + first * lefts, lefts, right + first * s.width + column * rows, columns, rows / 2, out,
                                    s.width);
        };
        gradient(kept.grad_gate_up, s.outer(), kept.x, grad_gate_up_EGD);
        gradient(kept.hidden, s.inner, kept.grad, grad_down_EFD);
    }
}

}  // namespace fulmen
