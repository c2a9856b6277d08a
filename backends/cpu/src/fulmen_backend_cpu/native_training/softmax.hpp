// The softmax between the two products of attention, and the softmax of the cross entropy, each in place.
//
// Legend: T queries, S keys of a block of scores, V vocabulary, C tokens.
#pragma once

#include "rows.hpp"

namespace fulmen {

// Which query and which keys a row of scores is about. Rows lie [B][kv heads][blocks][queries of a block * group].
struct Scores {
    const int32_t* first;  // [B or 1][T]: the first key that a query sees; the last is itself
    int64_t first_stride;  // T, or 0 for one row of them
    int64_t kv_heads, blocks, block, group;
    int64_t query, key;    // of the first block's first row and first column; both grow by `block` from block to block
    int64_t tokens;        // T: queries beyond are filler and see nothing
    int64_t keys;          // S, a multiple of LANES
};

inline void visible(const Scores& s, int64_t row, int64_t& from, int64_t& to) {
    const int64_t rows = s.block * s.group, item = row / rows, j = item % s.blocks, batch = item / s.blocks / s.kv_heads;
    const int64_t query = s.query + j * s.block + row % rows / s.group, key = s.key + j * s.block;
    from = to = 0;
    if (query >= s.tokens) return;
    from = std::max<int64_t>(s.first[batch * s.first_stride + query] - key, 0);
    to = query - key + 1;
}

// softmax(scale * scores) over the keys that each row sees, zero elsewhere.
template <class T>
void softmax_forward(T* scores, const Scores& s, int64_t rows, float scale, int threads) {
    const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> row_memory((size_t)s.keys + LANES);
        float* weights = row_memory.data();
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            T* row = scores + r * s.keys;
            int64_t from, to;
            visible(s, r, from, to);
            const int begin = (int)(from / LANES * LANES), end = std::min<int>(round_up((int)to, LANES), (int)s.keys);
            f32x16 most = splat(-INFINITY), total{};
            for (int i = begin; i < end; i += LANES) {
                const i32x16 seen = (lane + i >= (int)from) & (lane + i < (int)to);
                const f32x16 v = seen ? get(row + i) * scale : splat(-INFINITY);
                store(weights + i, v);
                most = maximum(most, v);
            }
            const float largest_score = largest(most);
            for (int i = begin; i < end; i += LANES) {
                const f32x16 weight = exponential(load_f32(weights + i) - largest_score);
                store(weights + i, weight);
                total += weight;
            }
            const float share = 1.0f / sum(total);
            for (int i = 0; i < begin; i += LANES) put(row + i, f32x16{});
            for (int i = begin; i < end; i += LANES) put(row + i, load_f32(weights + i) * share);
            for (int i = end; i < (int)s.keys; i += LANES) put(row + i, f32x16{});
        }
    }
}

// The gradient of the scores, in place of that of the weights.
template <class T>
void softmax_backward(const T* weights, T* grads, int64_t rows, int64_t keys, float scale, int threads) {
    for_rows(rows, threads, [&](int64_t r) {
        const T* weight = weights + r * keys;
        T* grad = grads + r * keys;
        f32x16 along{};
        for (int64_t i = 0; i < keys; i += LANES) along += get(weight + i) * get(grad + i);
        const float mean = sum(along);
        for (int64_t i = 0; i < keys; i += LANES) put(grad + i, get(weight + i) * (get(grad + i) - mean) * scale);
    });
}

// Each token's weighted cross entropy, and the gradient of the sum of them in place of the logits.
template <class T>
void cross_entropy(T* logits_CV, const int64_t* targets_C, const float* weights_C, float* losses_C, int64_t tokens, int64_t vocabulary,
                   int threads) {
    for_rows(tokens, threads, [&](int64_t c) {
        T* row = logits_CV + c * vocabulary;
        f32x16 most_v = splat(-INFINITY), total{};
        for (int64_t v = 0; v < vocabulary; v += LANES) most_v = maximum(most_v, get(row + v));
        const float most = largest(most_v);
        for (int64_t v = 0; v < vocabulary; v += LANES) total += exponential(get(row + v) - most);
        const float all = sum(total), weight = weights_C[c], target = get_one(row + targets_C[c]);
        losses_C[c] = weight * (std::log(all) + most - target);
        const float share = weight / all;
        for (int64_t v = 0; v < vocabulary; v += LANES) put(row + v, exponential(get(row + v) - most) * share);
        T* at = row + targets_C[c];
        float lanes[LANES] = {std::exp(target - most) * share - weight};
        T rounded[LANES];
        put(rounded, load_f32(lanes));
        *at = rounded[0];
    });
}

}  // namespace fulmen
