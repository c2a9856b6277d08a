// Attention backward (FlashAttention-2, arXiv 2307.08691): weights are computed again from the scores and the forward pass's sums.
//
// A block of strips walks the keys that it sees. Each strip makes its weights and the gradients of its scores for some panels of
// keys, and from the latter its queries' gradient; then each panel of keys gets its part of the keys' and values' gradients from
// all rows of the block at once, as short sums would spend their time on loading and storing what they are added to.
// What is taken off the gradients of a row's weights is their mean by these very weights. Taken from the rounded result, as usual,
// it would not cancel where a query sees few keys. A block that sees more keys than it meets at once makes them twice for it.
// Threads share parts of a kv head's queries; a part adds up gradients of keys and values of its own, and the parts' are
// added in order, so that no result depends on who computed it.
//
// Legend: as in attention.hpp.
#pragma once

#include "attention.hpp"

namespace fulmen {

constexpr int64_t BACKWARD_PANELS = 32;  // of keys that a block meets at once
constexpr int64_t BLOCK_OF_ROWS = 192;   // rows of a block, about
constexpr int64_t ENOUGH_PARTS = 32;     // of all kv heads, for threads to share
constexpr int64_t MOST_PARTS = 8;        // of one kv head: each has room for gradients of as many keys as it sees
constexpr int64_t PART_TOKENS = 128;     // at least

// The queries of a kv head that one thread walks, in strips, and where its gradients of keys lie: from panel `from` on.
struct Part {
    int64_t item, begin, end, from, at;
};

inline int64_t block_strips(const AttentionSizes& s) { return std::max<int64_t>(BLOCK_OF_ROWS / s.rows(), 1); }

// Parts in the order of their queries, each kv head's one after the other; `floats` is the room that they need together.
inline std::vector<Part> parts_of(const Reach& reach, const AttentionSizes& s, int64_t& floats) {
    const int64_t wanted = std::min((ENOUGH_PARTS + s.items() - 1) / s.items(), MOST_PARTS);
    const int64_t least = round_up(PART_TOKENS / LANES, (int)block_strips(s));
    const int64_t each = std::max<int64_t>(round_up((int)((s.strips() + wanted - 1) / wanted), (int)block_strips(s)), least);
    std::vector<Part> parts;
    floats = 0;
    for (int64_t item = 0; item < s.items(); item++)
        for (int64_t begin = 0; begin < s.strips(); begin += each) {
            const int64_t end = std::min(begin + each, s.strips()), from = reach.froms(item / s.kv_heads)[begin];
            parts.push_back({item, begin, end, from, floats});
            floats += 2 * (end - from) * LANES * s.width;
        }
    return parts;
}

// What a thread computes a block in.
struct BackwardMemory {
    int64_t strips, rows;                                      // of a block
    std::vector<uint16_t> q, grad;                             // [rows, h], as left operands
    std::vector<uint16_t> q_panels, grad_panels;               // the same in panels, summed over rows
    std::vector<uint16_t> weights, grad_scores;                // a panel for each panel of keys, summed over rows
    std::vector<uint16_t> grad_rows;                           // the gradient of a strip's scores as a left operand
    std::vector<float> scores, grad_weights;                   // of a strip; the scores become weights
    std::vector<float> grad_q, most, log_total, mean;
    explicit BackwardMemory(const AttentionSizes& s)
        : strips(block_strips(s)), rows(strips * s.rows()), q(rows * s.width), grad(rows * s.width),
          q_panels(rows * s.width), grad_panels(rows * s.width), weights(rows * BACKWARD_PANELS * LANES),
          grad_scores(rows * BACKWARD_PANELS * LANES), grad_rows(s.rows() * BACKWARD_PANELS * LANES),
          scores(s.rows() * BACKWARD_PANELS * LANES), grad_weights(s.rows() * BACKWARD_PANELS * LANES), grad_q(rows * s.width),
          most(rows), log_total(rows), mean(rows) {}
};

struct AttentionGradients {
    uint16_t *q, *k, *v;  // [B, T, heads, h]
};

class AttentionBackward {
  public:
    AttentionBackward(const Tokens& grad, const Tokens& q, const Tokens& k, const Tokens& v, const float* most, const float* log_total,
                      const Visible& visible, const AttentionSizes& s, const AttentionGradients& grads)
        : s(s), grad(grad), q(q), k(k), v(v), most(most), log_total(log_total), visible(visible), grads(grads),
          keys(s, true, true), values(s, true, false), reach(visible, s) {}

    void run(int threads) {
        pack_keys_and_values(keys, values, k, v, s, threads);
        int64_t floats;
        const std::vector<Part> parts = parts_of(reach, s, floats);
        const auto sums = unwritten<float>(floats);
#pragma omp parallel num_threads(threads)
        {
            BackwardMemory m(s);
#pragma omp for schedule(dynamic)
            for (size_t i = 0; i < parts.size(); i++) walk(parts[parts.size() - 1 - i], m, sums.get());  // of a kv head, the longest first
#pragma omp for schedule(static)
            for (int64_t i = 0; i < s.items() * s.strips(); i++) add_parts(parts, sums.get(), i / s.strips(), i % s.strips());
        }
    }

  private:
    const AttentionSizes s;
    const Tokens grad, q, k, v;
    const float *most, *log_total;  // [B, K, T, G]
    const Visible visible;
    const AttentionGradients grads;
    KeyPanels keys, values;
    const Reach reach;

    void walk(const Part& part, BackwardMemory& m, float* sums) const {
        const int64_t each = (part.end - part.from) * LANES * s.width;
        float *grad_k = sums + part.at, *grad_v = grad_k + each;
        std::fill(grad_k, grad_k + 2 * each, 0.0f);
        const int32_t* from = reach.froms(part.item / s.kv_heads);
        for (int64_t begin = part.begin; begin < part.end; begin += m.strips) {
            const int64_t end = std::min(begin + m.strips, part.end);
            load_block(part.item, begin, end, m);
            const bool at_once = end - from[begin] <= BACKWARD_PANELS;
            const auto each_strip = [&](int64_t panel, int64_t stop, const auto& work) {
                for (int64_t strip = begin; strip < end; strip++) {
                    const int64_t first = std::max<int64_t>(panel, from[strip]), last = std::min(stop, strip + 1);
                    if (first < last) work(strip, first, last);
                }
            };
            for (int64_t panel = from[begin]; panel < end && !at_once; panel += BACKWARD_PANELS)
                each_strip(panel, std::min(panel + BACKWARD_PANELS, end),
                           [&](int64_t strip, int64_t first, int64_t last) { weigh(part.item, strip, strip - begin, first, last, true, m); });
            for (int64_t panel = from[begin]; panel < end; panel += BACKWARD_PANELS) {
                const int64_t stop = std::min(panel + BACKWARD_PANELS, end);
                each_strip(panel, stop, [&](int64_t strip, int64_t first, int64_t last) {
                    weigh(part.item, strip, strip - begin, first, last, at_once, m);
                    descend(part.item, strip - begin, first, last, panel, m);
                });
                for (int64_t p = panel; p < stop; p++) {
                    int64_t first = std::max(begin, p), last = first;  // the strips that see it
                    while (last < end && from[last] <= p) last++;
                    const int64_t to = (p - part.from) * LANES * s.width;
                    add_rows(m.weights, m.grad_panels, first - begin, last - begin, p - panel, m, grad_v + to);
                    add_rows(m.grad_scores, m.q_panels, first - begin, last - begin, p - panel, m, grad_k + to);
                }
            }
            store_block(part.item, begin, end, m);
        }
    }

    void load_block(int64_t item, int64_t begin, int64_t end, BackwardMemory& m) const {
        const int64_t batch = item / s.kv_heads, kv_head = item % s.kv_heads, size = s.rows() * s.width;
        for (int64_t strip = begin; strip < end; strip++) {
            const int64_t at = (strip - begin) * size;
            gather_strip(q, s, batch, kv_head, strip, s.group, m.q.data() + at);
            gather_strip(grad, s, batch, kv_head, strip, s.group, m.grad.data() + at);
        }
        const int64_t rows = (end - begin) * s.rows();
        const int64_t there = std::min(rows, (s.tokens - begin * LANES) * s.group);
        const int64_t first = (item * s.tokens + begin * LANES) * s.group;
        for (std::vector<float>* of_rows : {&m.most, &m.log_total, &m.mean}) std::fill(of_rows->begin(), of_rows->end(), 0.0f);
        std::copy(most + first, most + first + there, m.most.data());
        std::copy(log_total + first, log_total + first + there, m.log_total.data());
        panels_of_rows(m.q.data(), s.width, rows / 2, (int)s.width, m.q_panels.data(), m.rows * LANES);
        panels_of_rows(m.grad.data(), s.width, rows / 2, (int)s.width, m.grad_panels.data(), m.rows * LANES);
        std::fill(m.grad_q.begin(), m.grad_q.end(), 0.0f);
    }

    // A strip's weights and their gradients for panels [from, to) of keys; `add` adds to the gradients' mean by weight.
    void weigh(int64_t item, int64_t strip, int64_t index, int64_t from, int64_t to, bool add, BackwardMemory& m) const {
        const int64_t at = index * s.rows() * s.width, panels = to - from, keys_here = panels * LANES, batch = item / s.kv_heads;
        keys.by_key(by_rows(m.q.data() + at, s.width), s.rows(), item, from, panels, m.scores.data(), keys_here);
        values.by_key(by_rows(m.grad.data() + at, s.width), s.rows(), item, from, panels, m.grad_weights.data(), keys_here);
        const int64_t whole = reach.wholes(batch)[strip];
        const int32_t* first = visible.of(batch);
        const float scale = s.scale() * LOG2_E;
        for (int64_t r = 0; r < s.rows(); r++) {
            const int64_t row = index * s.rows() + r, query = strip * LANES + r / s.group;
            f32x16 along{};
            for (int64_t p = 0; p < panels; p++) {
                float* score = m.scores.data() + r * keys_here + p * LANES;
                f32x16 weight = power_of_two((load_f32(score) - m.most[row]) * scale - m.log_total[row]);
                if ((from + p < whole || from + p >= strip) && query < s.tokens)
                    weight = seen(first[query], query, (from + p) * LANES) ? weight : f32x16{};
                store(score, weight);
                along += weight * load_f32(m.grad_weights.data() + r * keys_here + p * LANES);
            }
            if (add) m.mean[row] += sum(along);
        }
    }

    // From a strip's weights and their gradients those of the scores, rounded as the products take them, and the queries' part;
    // the memory of panels begins with panel `base`.
    void descend(int64_t item, int64_t index, int64_t from, int64_t to, int64_t base, BackwardMemory& m) const {
        const int64_t panels = to - from, keys_here = panels * LANES, first_row = index * s.rows(), next = m.rows * LANES;
        const float scale = s.scale();
        uint16_t *weights = m.weights.data() + (from - base) * next + first_row * LANES,
                 *grad_scores = m.grad_scores.data() + (from - base) * next + first_row * LANES;
        for (int64_t r = 0; r < s.rows(); r += 2)
            for (int64_t p = 0; p < panels; p++) {
                u16x16 weight_bits[2], grad_bits[2];
                for (int64_t i = 0; i < 2; i++) {
                    const int64_t place = (r + i) * keys_here + p * LANES;
                    const f32x16 weight = load_f32(m.scores.data() + place);
                    weight_bits[i] = to_bf16(weight);
                    grad_bits[i] = to_bf16(weight * (load_f32(m.grad_weights.data() + place) - m.mean[first_row + r + i]) * scale);
                    store(m.grad_rows.data() + place, grad_bits[i]);
                }
                store(weights + p * next + r * LANES, paired(weight_bits[0], weight_bits[1]));
                store(grad_scores + p * next + r * LANES, paired(grad_bits[0], grad_bits[1]));
            }
        keys.by_width(by_rows(m.grad_rows.data(), keys_here), s.rows(), item, from, panels, m.grad_q.data() + first_row * s.width, true);
    }

    // What the rows of strips [first, last) of the block add to the gradient of one panel of keys or values.
    void add_rows(const std::vector<uint16_t>& left, const std::vector<uint16_t>& right, int64_t first, int64_t last, int64_t place,
                  const BackwardMemory& m, float* out) const {
        if (first >= last) return;
        const int64_t at = first * s.rows() * LANES;
        multiply(by_columns(left.data() + place * m.rows * LANES + at), LANES, right.data() + at, (int)s.width / LANES,
                 (last - first) * s.rows() / 2, m.rows * LANES, out, s.width, true);
    }

    void store_block(int64_t item, int64_t begin, int64_t end, const BackwardMemory& m) const {
        const int64_t batch = item / s.kv_heads, kv_head = item % s.kv_heads, each = s.group * s.width;
        for (int64_t t = begin * LANES; t < std::min(end * LANES, s.tokens); t++)
            for (int64_t d = 0; d < each; d += LANES)
                put(grads.q + ((batch * s.tokens + t) * s.kv_heads + kv_head) * each + d,
                    load_f32(m.grad_q.data() + (t - begin * LANES) * each + d));
    }

    void add_parts(const std::vector<Part>& parts, const float* sums, int64_t item, int64_t panel) const {
        const int64_t of_item = parts.size() / s.items(), size = LANES * s.width;
        const int64_t there = std::min<int64_t>(LANES, s.tokens - panel * LANES);
        for (int64_t d = 0; d < there * s.width; d += LANES) {
            f32x16 grad_k{}, grad_v{};
            for (int64_t i = item * of_item; i < (item + 1) * of_item; i++) {
                const Part& part = parts[i];
                if (panel < part.from || panel >= part.end) continue;
                const float* at = sums + part.at + (panel - part.from) * size + d;
                grad_k += load_f32(at);
                grad_v += load_f32(at + (part.end - part.from) * size);
            }
            const int64_t t = panel * LANES + d / s.width, batch = item / s.kv_heads, kv_head = item % s.kv_heads;
            const int64_t to = ((batch * s.tokens + t) * s.kv_heads + kv_head) * s.width + d % s.width;
            put(grads.k + to, grad_k);
            put(grads.v + to, grad_v);
        }
    }
};

}  // namespace fulmen
