#include "model.hpp"

namespace fulmen {

Rows Model::rows(Format format, int inputs, int count) {
    Rows r;
    r.format = format;
    r.inputs = inputs;
    r.padded_inputs = round_up(inputs, INPUT_MULTIPLE);
    count += 32;  // read by the matrix units beyond the last row
    r.data = memory.take(count * r.row_bytes());
    if (format == Format::I8) {
        r.scales = memory.array<float>((size_t)count * r.groups());
        r.offsets = memory.array<int32_t>((size_t)count * r.groups());
    }
    return r;
}

Model::Model(const Shape& s, const LayerShape* layer_shapes, std::shared_ptr<Pool> threads) : shape(s), pool(std::move(threads)) {
    hp = round_up(s.head_dim, LANES);
    group_heads = s.heads / s.kv_heads;
    queries_width = s.heads * s.head_dim;
    kv_width = s.kv_heads * s.head_dim;
    qkv_width = queries_width + 2 * kv_width + (s.attention_gate ? queries_width : 0);

    int dense_width = 0;
    bool rings = false;
    caches.resize(s.caches);
    layers.resize(s.layers);
    for (int i = 0; i < s.layers; i++) {
        const LayerShape& l = layer_shapes[i];
        layers[i].shape = l;
        if (l.mixture) layers[i].experts.resize(s.experts);
        dense_width = std::max(dense_width, l.dense_width);
        if (!l.owns_kv) continue;
        Cache& cache = caches[l.cache];
        cache.format = s.kv;
        cache.window = l.window;
        cache.capacity = l.window ? std::min(s.max_context, l.window + s.window_slack) : s.page_tokens;
        cache.padded = round_up(cache.capacity, BLOCK);
        cache.kv_heads = s.kv_heads;
        cache.width = hp;
        rings = rings || l.window;
        const size_t heads = (size_t)(l.window ? s.slots : s.pages) * s.kv_heads;
        cache.k = memory.take(heads * cache.head_bytes());
        cache.v = memory.take(heads * cache.head_bytes());
        kv_bytes += 2 * heads * cache.head_bytes();
        if (s.kv == Format::I8) {
            cache.k_scales = memory.array<float>(heads * cache.padded);
            cache.v_scales = memory.array<float>(heads * cache.padded);
            kv_bytes += 2 * heads * cache.padded * sizeof(float);
        }
    }
    const int n = s.max_step_tokens;
    if (rings) {
        chunk.format = s.kv;
        chunk.padded = round_up(n, KEYS) + 2 * KEYS * std::min(s.max_sequences, n);
        chunk.kv_heads = s.kv_heads;
        chunk.width = hp;
        chunk.k = memory.take(s.kv_heads * chunk.head_bytes());
        chunk.v = memory.take(s.kv_heads * chunk.head_bytes());
        if (s.kv == Format::I8) {
            chunk.k_scales = memory.array<float>((size_t)s.kv_heads * chunk.padded);
            chunk.v_scales = memory.array<float>((size_t)s.kv_heads * chunk.padded);
        }
    }

    const Format format = activations_for(s.weights);
    const int pairs = n * std::max(1, s.experts_per_token);
    x = memory.array<float>((size_t)n * s.width);
    y = memory.array<float>((size_t)n * s.width);
    normed = rows(format, s.width, n);
    normed_floats = memory.array<float>((size_t)(n + 32) * normed.padded_inputs);
    qkv = memory.array<float>((size_t)n * qkv_width);
    attended = rows(format, queries_width, n);
    attended_floats = memory.array<float>((size_t)n * attended.padded_inputs);
    queries = memory.take(((size_t)n * s.heads + 32 * s.kv_heads) * hp * 4);
    max_splits = (s.max_context + SPLIT - 1) / SPLIT + 1;
    partials = memory.array<float>((size_t)std::min(n, s.max_sequences) * s.heads * max_splits * (hp + LANES));
    int widest = 0;
    if (dense_width) {
        dense_hidden = rows(format, dense_width, n);
        widest = n * dense_hidden.padded_inputs;
    }
    if (s.experts) {
        router_logits = memory.array<float>((size_t)n * s.experts);
        gathered = rows(format, s.width, pairs);
        hidden = rows(format, s.expert_width, pairs);
        widest = std::max(widest, pairs * hidden.padded_inputs);
        chosen.resize(pairs);
        chosen_weights.resize(pairs);
        row_of_pair.resize(pairs);
        token_of_row.resize(pairs);
        weight_of_row.resize(pairs);
        expert_begin.resize(s.experts + 1);
    }
    hidden_floats = format == Format::I8 ? memory.array<float>(widest) : nullptr;
    if (s.adapters) {
        adapters.resize(s.adapters);
        adapted_rows.reserve(s.max_sequences);
        low_rank_stride = round_up(4 * s.adapter_rank, LANES);  // of queries, keys, values and their gate
        low_rank = memory.array<float>((size_t)n * low_rank_stride);
        widened_stride = round_up(dense_width, INPUT_MULTIPLE);
        widened = memory.array<float>((size_t)pool->threads() * MAX_ROWS * widened_stride);
    }
    row_stretches = round_up((s.vocab + STRETCH - 1) / STRETCH, LANES);
    stretch_tops = memory.array<float>((size_t)n * row_stretches);
    stretch_weights = memory.array<float>((size_t)n * row_stretches);
    draw_tops = memory.array<float>((size_t)pool->threads() * row_stretches);
    draw_weights = memory.array<float>((size_t)pool->threads() * row_stretches);
    tokens.resize(n);
    sequence_order.reserve(s.max_sequences);
    sequence_of_row.resize(n);
    wanted_rows.reserve(n);
    sequences.reserve(s.max_sequences);
    for (int t = 0; t < pool->threads(); t++)
        attention.push_back(std::make_unique<Attention>(std::max(QUERY_ROWS, group_heads), hp, s.kv));
}

}  // namespace fulmen
