// The attention half of a layer: projections, rotary positions, cache writes, attention of every sequence, output.
//
// A chunk that would overwrite places of a ring which its own first tokens still see lies in the chunk cache while it
// attends, and enters the ring afterwards.
#include "model.hpp"

namespace fulmen {
namespace {

// Where one decoded token's partial results lie: [splits] x (hp out, most, total).
float* partial(const Model& m, int decoded, int head, int split) {
    return m.partials + (((size_t)decoded * m.shape.heads + head) * m.max_splits + split) * (m.hp + LANES);
}

int splits_of(const Layer& layer, const Sequence& s) {
    if (layer.shape.window || s.count > 1) return 1;
    return (s.start + 1 + SPLIT - 1) / SPLIT;
}

bool overtakes(const Cache& cache, const Sequence& s) {
    return cache.window && s.count > cache.capacity - cache.window + 1 && s.start + s.count > cache.capacity;
}

// The ring or page that holds `position`, and its place there.
HeadCache holder(const Cache& cache, const Sequence& s, int kv_head, int position) {
    return cache.head(cache.window ? s.slot : s.pages[position / cache.capacity], kv_head);
}
int place_of(const Cache& cache, int position) { return position % cache.capacity; }

// Give chunks that need it their place in the chunk cache, and zero the blocks of values that are begun but not filled.
void prepare_caches(Model& m, const Cache& cache) {
    int base = 0;
    for (Sequence& s : m.sequences) {
        s.chunk_base = -1;
        const int end = s.start + s.count;
        if (overtakes(cache, s)) {
            s.chunk_base = base + s.start % KEYS;  // scored with the same keys at once whatever lies before
            const int last = s.chunk_base + s.count - 1;
            for (int head = 0; head < m.shape.kv_heads; head++) {
                m.chunk.clear_values(m.chunk.head(0, head), s.chunk_base);
                m.chunk.clear_values(m.chunk.head(0, head), last);
            }
            base = (last / KEYS + 1) * KEYS;
        }
        // Of a chunk that fills the ring, the last block's end is never written but read.
        const int block = ((cache.window ? std::min(end, cache.capacity) : end) - 1) / BLOCK * BLOCK;
        if (block >= s.start)
            for (int head = 0; head < m.shape.kv_heads; head++)
                cache.clear_values(holder(cache, s, head, block), place_of(cache, block));
    }
}

void clip(float* x, int count, float limit) {
    for (int i = 0; i < count; i++) x[i] = std::fmin(std::fmax(x[i], -limit), limit);
}

// Rotate pairs (d, d + h/2) of one head.
void rotate(float* x, const float* cosines, const float* sines, int half) {
    for (int d = 0; d < half; d++) {
        const float a = x[d], b = x[d + half];
        x[d] = a * cosines[d] - b * sines[d];
        x[d + half] = b * cosines[d] + a * sines[d];
    }
}

void norm_heads(float* x, const float* weight, const Model& m, int heads) {
    if (!weight) return;
    const int h = m.shape.head_dim;
    if (m.shape.qk_norm_whole) return rms_norm(x, weight, m.shape.eps, heads * h, x);
    for (int i = 0; i < heads; i++) rms_norm(x + i * h, weight, m.shape.eps, h, x + i * h);
}

// Queries into their buffer, keys and values into a cache.
void place_token(Model& m, const Layer& layer, const Cache& cache, int row, const Sequence& s, int tokens) {
    const int h = m.shape.head_dim, position = s.start + row - s.row;
    float* q = m.qkv + (size_t)row * m.qkv_width;
    float* k = q + m.queries_width;
    float* v = k + m.kv_width;
    const bool owns = layer.shape.owns_kv;
    const float* cosines = m.cosines + (size_t)position * (h / 2);
    const float* sines = m.sines + (size_t)position * (h / 2);

    norm_heads(q, layer.q_norm, m, m.shape.heads);
    if (owns) norm_heads(k, layer.k_norm, m, m.shape.kv_heads);
    if (m.shape.clip_qkv > 0) clip(q, m.queries_width + (owns ? 2 * m.kv_width : 0), m.shape.clip_qkv);
    const float scale = 1.0f / std::sqrt((float)h);
    alignas(64) float padded[2][512];
    std::memset(padded, 0, sizeof padded);
    const Format format = attention_rows_format(m.shape.kv);
    for (int head = 0; head < m.shape.heads; head++) {
        float* x = q + head * h;
        if (layer.shape.rotates) rotate(x, cosines, sines, h / 2);
        const int kv_head = head / m.group_heads, member = head % m.group_heads;
        const size_t at = ((size_t)kv_head * tokens + row) * m.group_heads + member;
        for (int d = 0; d < h; d++) padded[0][d] = x[d] * scale;
        for (int d = 0; d < m.hp; d += LANES) {
            const f32x16 value = load_f32(padded[0] + d);
            if (format == Format::F32)
                store((float*)m.queries + at * m.hp + d, value);
            else
                store((uint16_t*)m.queries + at * m.hp + d, to_bf16(value));
        }
    }
    if (!owns) return;
    const bool apart = s.chunk_base >= 0;
    for (int head = 0; head < m.shape.kv_heads; head++) {
        if (layer.shape.rotates) rotate(k + head * h, cosines, sines, h / 2);
        std::memcpy(padded[0], k + head * h, sizeof(float) * h);
        std::memcpy(padded[1], v + head * h, sizeof(float) * h);
        if (apart)
            m.chunk.put(m.chunk.head(0, head), s.chunk_base + row - s.row, padded[0], padded[1]);
        else
            cache.put(holder(cache, s, head, position), place_of(cache, position), padded[0], padded[1]);
    }
}

void enter_ring(Model& m, const Cache& cache, int row, const Sequence& s) {
    const int h = m.shape.head_dim, position = s.start + row - s.row;
    if (position < s.start + s.count - cache.capacity) return;
    const float* k = m.qkv + (size_t)row * m.qkv_width + m.queries_width;
    alignas(64) float padded[2][512];
    std::memset(padded, 0, sizeof padded);
    for (int head = 0; head < m.shape.kv_heads; head++) {
        std::memcpy(padded[0], k + head * h, sizeof(float) * h);
        std::memcpy(padded[1], k + m.kv_width + head * h, sizeof(float) * h);
        cache.put(holder(cache, s, head, position), place_of(cache, position), padded[0], padded[1]);
    }
}

void attend(Model& m, const Cache& cache, const AttentionTask& task, int tokens, Attention& attention) {
    const Sequence& s = *task.sequence;
    const int g = m.group_heads, h = m.shape.head_dim;
    Queries q{};
    q.format = attention_rows_format(m.shape.kv);
    q.rows = task.tokens * g;
    q.heads = g;
    q.position = s.start + task.first;
    q.data = m.queries + ((size_t)task.kv_head * tokens + s.row + task.first) * g * m.hp * element_bytes(q.format);
    attention.begin(q.rows);

    const int end = s.start + s.count, capacity = cache.capacity;
    auto cached = [&](int from, int to) {  // positions; of a ring at most `capacity`
        while (from < to) {
            const int first = place_of(cache, from), next = std::min(to, from + capacity - first);
            const HeadCache after = next < to ? holder(cache, s, task.kv_head, next) : HeadCache{};
            attention.attend(cache, q, {holder(cache, s, task.kv_head, from), first, first + next - from, from}, after);
            from = next;
        }
    };
    if (s.chunk_base >= 0) {
        cached(std::max(0, s.start - cache.window + 1), s.start);
        Cache chunk = m.chunk;
        chunk.window = cache.window;
        attention.attend(chunk, q, {m.chunk.head(0, task.kv_head), s.chunk_base, s.chunk_base + s.count, s.start}, {});
    } else if (task.splits > 1) {
        const int from = task.split * SPLIT;
        cached(from, std::min(end, from + SPLIT));
    } else {
        cached(cache.window ? std::max(0, end - capacity) : 0, end);
    }

    for (int r = 0; r < q.rows; r++) {
        const int row = s.row + task.first + r / g, query_head = task.kv_head * g + r % g;
        const float* out = attention.out(r);
        if (task.splits > 1) {
            float* to = partial(m, (int)(&s - m.sequences.data()), query_head, task.split);
            std::memcpy(to, out, sizeof(float) * m.hp);
            to[m.hp] = attention.most(r);
            to[m.hp + 1] = attention.total(r);
            continue;
        }
        float* to = m.attended_floats + (size_t)row * m.attended.padded_inputs + query_head * h;
        const float share = 1.0f / attention.total(r);
        for (int d = 0; d < h; d++) to[d] = out[d] * share;
    }
}

void combine_splits(Model& m, const Sequence& s, int splits) {
    const int h = m.shape.head_dim, decoded = (int)(&s - m.sequences.data());
    for (int head = 0; head < m.shape.heads; head++) {
        float most = -INFINITY, total = 0;
        for (int i = 0; i < splits; i++) most = std::fmax(most, partial(m, decoded, head, i)[m.hp]);
        float* to = m.attended_floats + (size_t)s.row * m.attended.padded_inputs + head * h;
        for (int d = 0; d < h; d++) to[d] = 0;
        for (int i = 0; i < splits; i++) {
            const float* from = partial(m, decoded, head, i);
            const float fade = std::exp(from[m.hp] - most);
            total += fade * from[m.hp + 1];
            for (int d = 0; d < h; d++) to[d] += fade * from[d];
        }
        for (int d = 0; d < h; d++) to[d] /= total;
    }
}

void attend_all(Model& m, const Layer& layer, const Cache& cache, int tokens) {
    std::vector<AttentionTask>& tasks = m.attention_tasks;
    tasks.clear();
    const int step = std::max(1, QUERY_ROWS / m.group_heads);
    int64_t work = 0;
    for (const Sequence& s : m.sequences) {
        const int splits = splits_of(layer, s);
        for (int first = (s.count - 1) / step * step; first >= 0; first -= step)  // the longest rows first
            for (int head = 0; head < m.shape.kv_heads; head++)
                for (int split = 0; split < splits; split++)
                    tasks.push_back({&s, head, first, std::min(step, s.count - first), split, splits});
        const int keys = layer.shape.window ? std::min(layer.shape.window, s.start + s.count) : s.start + s.count;
        work += (int64_t)keys * s.count * m.shape.heads * m.hp;
    }
    constexpr int64_t TOO_LITTLE = 200'000;  // multiply-adds: a few microseconds
    auto run = [&](int index, int worker) { attend(m, cache, tasks[index], tokens, *m.attention[worker]); };
    if (work < TOO_LITTLE)
        for (size_t i = 0; i < tasks.size(); i++) run((int)i, 0);
    else
        m.pool->run((int)tasks.size(), run);
}

}  // namespace

void attention_phase(Model& m, const Layer& layer, int tokens) {
    const Rows &normed = m.normed, &attended = m.attended;
    const Cache& cache = m.caches[layer.shape.cache];
    const int index = (int)(&layer - m.layers.data());
    const Deltas to_heads(m, index, Product::QKV, as_floats(normed, m.normed_floats));
    product_to_floats(*m.pool, layer.qkv, normed, tokens, m.qkv, m.qkv_width, to_heads);
    const int owned = layer.shape.owns_kv ? 2 * m.kv_width : 0;
    const int gate_at = m.queries_width + owned;
    if (layer.shape.owns_kv)
        prepare_caches(m, cache);
    else
        for (Sequence& s : m.sequences) s.chunk_base = -1;
    for_rows(m, tokens, [&](int r, int) { place_token(m, layer, cache, r, m.sequences[m.sequence_of_row[r]], tokens); });
    attend_all(m, layer, cache, tokens);
    for_rows(m, tokens, [&](int r, int) {
        const Sequence& s = m.sequences[m.sequence_of_row[r]];
        if (s.chunk_base >= 0) enter_ring(m, cache, r, s);
        if (const int splits = splits_of(layer, s); splits > 1) combine_splits(m, s, splits);
        float* x = m.attended_floats + (size_t)r * attended.padded_inputs;
        if (m.shape.attention_gate) {
            const float* gate = m.qkv + (size_t)r * m.qkv_width + gate_at;
            int d = 0;
            for (; d + LANES <= m.queries_width; d += LANES) store(x + d, load_f32(x + d) * sigmoid(load_f32(gate + d)));
            for (; d < m.queries_width; d++) x[d] /= 1.0f + std::exp(-gate[d]);
        }
        attended.put(r, x);
    });
    const Deltas to_stream(m, index, Product::OUT, as_floats(attended, m.attended_floats));
    product_to_floats(*m.pool, layer.out, attended, tokens, m.y, m.shape.width, to_stream);
}

}  // namespace fulmen
