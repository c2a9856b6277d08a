// Attention forward: a strip of queries is multiplied with a block of keys, weighted by a running softmax and multiplied with the
// values while its scores are in the cache (FlashAttention-2, arXiv 2307.08691). Strips are what threads share.
//
// Legend: as in attention.hpp.
#pragma once

#include "attention.hpp"

namespace fulmen {

constexpr int64_t FORWARD_PANELS = 16;  // of keys that a strip meets at once

// What a thread computes a strip in.
struct StripMemory {
    std::vector<uint16_t> q, weights;
    std::vector<float> scores, sums, most, total;
    explicit StripMemory(const AttentionSizes& s)
        : q(s.rows() * s.width), weights(s.rows() * FORWARD_PANELS * LANES), scores(s.rows() * FORWARD_PANELS * LANES),
          sums(s.rows() * s.width), most(s.rows()), total(s.rows()) {}
};

// Scores of `panels` panels from `panel` on to weights 2^(scale * (score - most)), where `most` may grow: then what was summed before
// shrinks. Panels in [whole, strip) are seen by every query.
inline void weigh(StripMemory& m, const AttentionSizes& s, const int32_t* first, int64_t strip, int64_t whole, int64_t panel,
                  int64_t panels, float scale, bool start) {
    const int64_t keys = panels * LANES, rows = s.rows();
    float* scores = m.scores.data();
    uint16_t* weights = m.weights.data();
    for (int64_t r = 0; r < rows; r++, scores += keys, weights += keys) {
        const int64_t query = strip * LANES + r / s.group;
        f32x16 most_v = splat(UNSEEN);
        for (int64_t p = 0; p < panels; p++) {
            f32x16 score = load_f32(scores + p * LANES);
            if ((panel + p < whole || panel + p >= strip) && query < s.tokens) {
                score = seen(first[query], query, (panel + p) * LANES) ? score : splat(UNSEEN);
                store(scores + p * LANES, score);
            }
            most_v = maximum(most_v, score);
        }
        const float before = start ? LOWEST : m.most[r], most = std::max(largest(most_v), before);
        f32x16 total{};
        for (int64_t p = 0; p < panels; p++) {
            const f32x16 weight = power_of_two((load_f32(scores + p * LANES) - most) * scale);
            put(weights + p * LANES, weight);
            total += weight;
        }
        m.most[r] = most;
        if (start) {
            m.total[r] = sum(total);
        } else {
            const float shrunk = std::exp2((before - most) * scale);
            m.total[r] = m.total[r] * shrunk + sum(total);
            if (shrunk != 1.0f)
                for (int64_t d = 0; d < s.width; d += LANES)
                    store(m.sums.data() + r * s.width + d, load_f32(m.sums.data() + r * s.width + d) * shrunk);
        }
    }
}

// o [B, T, K*G, h], and for the backward pass each row's largest score and the base-2 logarithm of its sum of weights, both
// [B, K, T, G]: apart, so that the weight of an only key is 1 exactly.
inline void attention_forward(const Tokens& q, const Tokens& k, const Tokens& v, const Visible& visible, const AttentionSizes& s,
                              uint16_t* o, float* most, float* log_total, int threads) {
    KeyPanels keys(s, true, false), values(s, false, true);
    pack_keys_and_values(keys, values, k, v, s, threads);
    const Reach reach(visible, s);
    const int64_t strips = s.strips(), rows = s.rows();
    const float scale = s.scale() * LOG2_E;
#pragma omp parallel num_threads(threads)
    {
        StripMemory m(s);
#pragma omp for schedule(dynamic, 4)
        for (int64_t i = 0; i < s.items() * strips; i++) {
            const int64_t strip = i % strips, item = i / strips, batch = item / s.kv_heads, kv_head = item % s.kv_heads;
            const int64_t from = reach.froms(batch)[strip], to = strip + 1;
            gather_strip(q, s, batch, kv_head, strip, s.group, m.q.data());
            for (int64_t panel = from; panel < to; panel += FORWARD_PANELS) {
                const int64_t panels = std::min(FORWARD_PANELS, to - panel);
                keys.by_key(by_rows(m.q.data(), s.width), rows, item, panel, panels, m.scores.data(), panels * LANES);
                weigh(m, s, visible.of(batch), strip, reach.wholes(batch)[strip], panel, panels, scale, panel == from);
                values.by_width(by_rows(m.weights.data(), panels * LANES), rows, item, panel, panels, m.sums.data(), panel > from);
            }
            const int64_t there = std::min<int64_t>(LANES, s.tokens - strip * LANES);
            for (int64_t r = 0; r < there * s.group; r++) {
                const int64_t t = strip * LANES + r / s.group;
                uint16_t* to_row = o + (((batch * s.tokens + t) * s.kv_heads + kv_head) * s.group + r % s.group) * s.width;
                const float share = 1.0f / m.total[r];
                for (int64_t d = 0; d < s.width; d += LANES) put(to_row + d, load_f32(m.sums.data() + r * s.width + d) * share);
                most[(item * s.tokens + strip * LANES) * s.group + r] = m.most[r];
                log_total[(item * s.tokens + strip * LANES) * s.group + r] = std::log2(m.total[r]);
            }
        }
    }
}

}  // namespace fulmen
