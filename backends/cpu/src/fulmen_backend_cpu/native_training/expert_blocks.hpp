// The experts of a layer, forward and backward, in blocks of rows: each is gathered, multiplied, passed through SwiGLU and
// multiplied again while it is in the cache; blocks are what threads share.
//
// Legend: N tokens, K experts a token, M = N*K pairs, E experts, D width, F expert width, G = 2F (gate, then up), R rows
// sorted by expert, each expert's an even number, filler is zero.
#pragma once

#include "experts.hpp"
#include "panels.hpp"

#include <atomic>
#include <thread>

namespace fulmen {

struct ExpertSizes {
    int64_t experts, width, inner, top_k;
    int64_t outer() const { return 2 * inner; }
};

struct Span {
    int64_t expert, first, rows;
};

constexpr int64_t BLOCK_ROWS = 96;

// Rows [first, first + rows) of an expert in parts as even as can be, none above `most`, each of an even number of rows.
inline std::vector<Span> parts_of(const Span& span, int64_t most) {
    std::vector<Span> parts;
    const int64_t each = round_up(detail::even_part((int)span.rows, (int)most), 2);
    for (int64_t r = 0; r < span.rows; r += each) parts.push_back({span.expert, span.first + r, std::min(each, span.rows - r)});
    return parts;
}

// Experts that have rows.
inline std::vector<Span> spans_of(const int32_t* ends_E, int64_t experts) {
    std::vector<Span> spans;
    for (int64_t e = 0, first = 0; e < experts; first = ends_E[e++])
        if (ends_E[e] > first) spans.push_back({e, first, ends_E[e] - first});
    return spans;
}

inline std::vector<Span> blocks_of(const std::vector<Span>& spans) {
    std::vector<Span> blocks;
    for (const Span& span : spans)
        for (const Span& block : parts_of(span, BLOCK_ROWS)) blocks.push_back(block);
    return blocks;
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
    const std::vector<Span> spans = spans_of(ends_E, s.experts), blocks = blocks_of(spans);
    pack_all_weights(false, gate_up_EGD, down_EFD, spans, s, gate_up, down, threads);
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

// left transposed times right, [L, C], of columns in panels of so many pairs of rows; or plus that.
inline void multiply_transposed(const std::vector<uint16_t>& left, int64_t lefts, const std::vector<uint16_t>& right, int64_t columns,
                                int64_t pairs, float* out_LC, bool add) {
    constexpr int64_t STRIP = 4 * LANES;
    for (int64_t c = 0; c < columns; c += STRIP)
        for (int64_t l = 0; l < lefts; l += LANES)
            multiply(by_columns(left.data() + l * 2 * pairs), LANES, right.data() + c * 2 * pairs, (int)std::min(STRIP, columns - c) / LANES,
                     pairs, pairs * 2 * LANES, out_LC + l * columns + c, columns, add);
}

// A run of an expert's rows, the number of runs of the same expert that go before it.
struct Segment {
    Span span;
    int turn;
};

constexpr int64_t SEGMENT_BYTES = 512 << 10;  // of what is kept of a segment: half of a second cache

// Segments of all experts, the first of each before the second of any: neighbours in the list seldom wait for each other.
inline std::vector<Segment> segments_of(const std::vector<Span>& spans, int64_t rows) {
    std::vector<Segment> segments;
    for (const Span& span : spans) {
        int turn = 0;
        for (const Span& part : parts_of(span, rows)) segments.push_back({part, turn++});
    }
    std::stable_sort(segments.begin(), segments.end(), [](const Segment& a, const Segment& b) { return a.turn < b.turn; });
    return segments;
}

// All gradients, from that of y. A thread takes a segment through both: the rows, and their part of the weights' gradients,
// which are added up in the order of the segments, whoever computed them.
template <class X>
void experts_backward(const float* grad_ND, const X* x_ND, const float* gate_up_EGD, const float* down_EFD, const int32_t* ends_E,
                      const int32_t* pair_R, const float* weight_M, const uint16_t* gate_up_RG, const ExpertSizes& s, uint16_t* gate_up,
                      uint16_t* down, uint16_t* grad_x_RD, float* grad_weight_M, float* grad_gate_up_EGD, float* grad_down_EFD,
                      int threads) {
    const int64_t width = s.width, inner = s.inner, outer = s.outer();
    const std::vector<Span> spans = spans_of(ends_E, s.experts);
    pack_all_weights(true, gate_up_EGD, down_EFD, spans, s, gate_up, down, threads);
    const int64_t kept = std::max<int64_t>(BLOCK_ROWS, SEGMENT_BYTES / (2 * (2 * width + inner + outer)));
    const std::vector<Segment> segments = segments_of(spans, kept);
    std::vector<std::atomic<int>> done(s.experts);  // segments of each expert whose part has been added
#pragma omp parallel num_threads(threads)
    {
        BlockMemory memory(s);
        std::vector<uint16_t> rounded(BLOCK_ROWS * inner), grad_gate_up(BLOCK_ROWS * outer);
        std::vector<uint16_t> kept_x((kept + 2) * width), kept_grad((kept + 2) * width), kept_hidden((kept + 2) * inner),
            kept_gate_up((kept + 2) * outer);
        float* sums = memory.sums.data();
#pragma omp for schedule(monotonic : dynamic)
        for (size_t i = 0; i < segments.size(); i++) {
            const auto& [segment, turn] = segments[i];
            const uint16_t *gate_up_panels = gate_up + segment.expert * outer * width, *down_panels = down + segment.expert * inner * width;
            for (const Span& block : parts_of(segment, BLOCK_ROWS)) {
                const int rows = (int)block.rows;
                const int32_t* pair = pair_R + block.first;
                const auto keep = [&](const std::vector<uint16_t>& from, int64_t columns, std::vector<uint16_t>& to) {
                    panels_of_rows(from.data(), columns, rows / 2, (int)columns, to.data() + (block.first - segment.first) * LANES,
                                   segment.rows * LANES);
                };
                gather_block(grad_ND, pair, s, rows, memory.grad.data());
                multiply(by_rows(memory.grad.data(), width), rows, down_panels, (int)inner / LANES, width / 2, width * LANES, sums, inner);
                round_block(sums, rows * inner, rounded.data());
                swiglu_backward(rounded.data(), gate_up_RG + block.first * outer, pair, weight_M, grad_gate_up.data(), memory.hidden.data(),
                                grad_weight_M, rows, (int)inner, 1);
                multiply(by_rows(grad_gate_up.data(), outer), rows, gate_up_panels, (int)width / LANES, inner, outer * LANES, sums, width);
                round_block(sums, rows * width, grad_x_RD + block.first * width);
                gather_block(x_ND, pair, s, rows, memory.x.data());
                keep(memory.x, width, kept_x);
                keep(memory.grad, width, kept_grad);
                keep(memory.hidden, inner, kept_hidden);
                keep(grad_gate_up, outer, kept_gate_up);
            }
            std::atomic<int>& added = done[segment.expert];
            while (added.load(std::memory_order_acquire) < turn) std::this_thread::yield();
            multiply_transposed(kept_gate_up, outer, kept_x, width, segment.rows / 2, grad_gate_up_EGD + segment.expert * outer * width,
                                turn > 0);
            multiply_transposed(kept_hidden, inner, kept_grad, width, segment.rows / 2, grad_down_EFD + segment.expert * inner * width,
                                turn > 0);
            added.store(turn + 1, std::memory_order_release);
        }
    }
    for (int64_t e = 0, first = 0; e < s.experts; first = ends_E[e++])
        if (ends_E[e] == first) {
            std::fill_n(grad_gate_up_EGD + e * outer * width, outer * width, 0.0f);
            std::fill_n(grad_down_EFD + e * inner * width, inner * width, 0.0f);
        }
}

}  // namespace fulmen
