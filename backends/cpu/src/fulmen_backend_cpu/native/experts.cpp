// The feed-forward half of a layer: the router's choice in float32, tokens sorted by expert, and each weight read once
// a step for all tokens that need it.
#include "model.hpp"

namespace fulmen {
namespace {

// Scores, choice and mixing weights of one token.
void choose(const Model& m, const Layer& layer, const float* logits, int32_t* chosen, float* weights, float* scores) {
    const int experts = m.shape.experts, k = m.shape.experts_per_token;
    if (m.shape.sigmoid_router) {
        for (int e = 0; e < experts; e++) scores[e] = 1.0f / (1.0f + std::exp(-logits[e]));
    } else {
        float most = -INFINITY, total = 0;
        for (int e = 0; e < experts; e++) most = std::fmax(most, logits[e]);
        for (int e = 0; e < experts; e++) total += scores[e] = std::exp(logits[e] - most);
        for (int e = 0; e < experts; e++) scores[e] /= total;
    }
    float total = 0;
    for (int i = 0; i < k; i++) {
        int best = -1;
        float best_score = -INFINITY;
        for (int e = 0; e < experts; e++) {
            const float score = scores[e] + (layer.router_bias ? layer.router_bias[e] : 0.0f);
            bool taken = false;
            for (int j = 0; j < i; j++) taken = taken || chosen[j] == e;
            if (!taken && (best < 0 || score > best_score)) best = e, best_score = score;
        }
        chosen[i] = best;
        weights[i] = scores[best];
        total += weights[i];
    }
    for (int i = 0; i < k; i++) {
        if (m.shape.normalise_weights) weights[i] /= total + (m.shape.sigmoid_router ? 1e-20f : 0.0f);
        weights[i] *= m.shape.router_scale;
    }
}

// Sort (token, choice) pairs by expert, each expert's in the order of tokens.
void sort_by_expert(Model& m, int tokens) {
    const int k = m.shape.experts_per_token, pairs = tokens * k;
    auto& begin = m.expert_begin;
    std::fill(begin.begin(), begin.end(), 0);
    for (int i = 0; i < pairs; i++) begin[m.chosen[i] + 1]++;
    for (int e = 0; e < m.shape.experts; e++) begin[e + 1] += begin[e];
    std::vector<int32_t>& next = m.row_of_pair;  // filled in below; begin moves ahead and is put back
    for (int i = 0; i < pairs; i++) {
        const int row = begin[m.chosen[i]]++;
        next[i] = row;
        m.token_of_row[row] = i / k;
        m.weight_of_row[row] = m.chosen_weights[i];
    }
    for (int e = m.shape.experts; e > 0; e--) begin[e] = begin[e - 1];
    begin[0] = 0;
}

// hidden = silu(gate) * up of one block of results, whose panels alternate.
void gated(const Rows& hidden, float* floats, int row, int rows, int column, int columns, const float* block, int stride) {
    const int first = column / 2;
    for (int i = 0; i < rows; i++)
        for (int c = 0; c < columns; c += 2 * LANES) {
            const int to = first + c / 2;
            if (to >= hidden.padded_inputs) break;  // panels are padded further than inputs are
            const float* from = block + (size_t)i * stride + c;
            const f32x16 value = silu(load_f32(from)) * load_f32(from + LANES);
            if (hidden.format == Format::F32)
                store((float*)hidden.row(row + i) + to, value);
            else if (hidden.format == Format::BF16)
                store((uint16_t*)hidden.row(row + i) + to, to_bf16(value));
            else
                store(floats + (size_t)(row + i) * hidden.padded_inputs + to, value);
        }
}

// A feed-forward network and the rows it gets.
struct Part {
    const FeedForward* network;
    const Rows* in;
    const Rows* hidden;
    float* floats;
    int first_row, rows;
    Division division;
};

void route(Model& m, const Layer& layer, int tokens) {
    product_to_floats(*m.pool, layer.router, as_floats(m.normed, m.normed_floats), tokens, m.router_logits, m.shape.experts);
    const int k = m.shape.experts_per_token;
    for_rows(m, tokens, [&](int r, int) {
        float scores[1024];
        float* logits = m.router_logits + (size_t)r * m.shape.experts;
        choose(m, layer, logits, m.chosen.data() + (size_t)r * k, m.chosen_weights.data() + (size_t)r * k, scores);
    });
    sort_by_expert(m, tokens);
}

}  // namespace

void feed_forward_phase(Model& m, const Layer& layer, int tokens) {
    const bool mixture = layer.shape.mixture, dense = layer.shape.dense_width > 0;
    const Rows &normed = m.normed, &gathered = m.gathered, &hidden = m.hidden;
    Rows dense_hidden = m.dense_hidden;
    const int threads = m.pool->threads();

    const int index = (int)(&layer - m.layers.data());
    Deltas to_hidden, to_stream;  // of the dense part
    std::vector<Part> parts;
    if (dense) {
        to_hidden = Deltas(m, index, Product::GATE_UP, as_floats(normed, m.normed_floats));
        dense_hidden.inputs = layer.shape.dense_width;
        dense_hidden.padded_inputs = layer.dense.down.padded_inputs;
        parts.push_back({&layer.dense, &normed, &dense_hidden, m.hidden_floats, 0, tokens, {layer.dense.gate_up.panels, tokens, threads}});
    }
    if (mixture) {
        route(m, layer, tokens);
        const int pairs = tokens * m.shape.experts_per_token;
        if (tokens > 1) for_rows(m, pairs, [&](int r, int) { gathered.copy_row(r, normed, m.token_of_row[r]); });
        for (int e = 0; e < m.shape.experts; e++) {
            const int first = m.expert_begin[e], rows = m.expert_begin[e + 1] - first;
            if (!rows) continue;
            parts.push_back({&layer.experts[e], &gathered, &hidden, m.hidden_floats, first, rows, {layer.experts[e].gate_up.panels, rows, 1}});
        }
    }

    // The dense part and the experts share the buffer of floats one after the other when rows are int8.
    auto up = [&](size_t begin, size_t end) {
        int tasks = 0;
        for (size_t i = begin; i < end; i++) tasks += parts[i].division.tasks();
        m.pool->run(tasks, [&](int index, int) {
            size_t i = begin;
            while (index >= parts[i].division.tasks()) index -= parts[i++].division.tasks();
            const Part& part = parts[i];
            part.division.task(index, [&](int panel, int panels, int first, int count) {
                const int out = part.first_row + first;
                const int in = tokens == 1 ? 0 : out;
                multiply(part.network->gate_up, panel, panels, tokens == 1 ? normed : *part.in, in, count,
                         [&](int r, int n, int column, int columns, float* block, int stride) {
                             if (part.network == &layer.dense) to_hidden.add(out + r, n, column, columns, block, stride);
                             gated(*part.hidden, part.floats, out + r, n, column, columns, block, stride);
                         });
            });
        });
    };
    if (normed.format == Format::I8) {
        if (dense) {
            up(0, 1);
            to_stream = Deltas(m, index, Product::DOWN, as_floats(dense_hidden, m.hidden_floats));
            for_rows(m, tokens, [&](int r, int) { dense_hidden.put(r, m.hidden_floats + (size_t)r * dense_hidden.padded_inputs); });
        }
        if (mixture) {
            up(dense, parts.size());
            for_rows(m, tokens * m.shape.experts_per_token,
                     [&](int r, int) { hidden.put(r, m.hidden_floats + (size_t)r * hidden.padded_inputs); });
        }
    } else {
        up(0, parts.size());
        if (dense) to_stream = Deltas(m, index, Product::DOWN, dense_hidden);
    }

    // A task owns some columns of y for all tokens, so that experts add to them without meeting.
    const int width = m.shape.width;
    const int panels = parts[0].network->down.panels, step = tokens <= 2 ? 8 : 4;
    m.pool->run((panels + step - 1) / step, [&](int index, int) {
        const int panel = index * step, count = std::min(step, panels - panel);
        const int from = panel * LANES, to = std::min(width, (panel + count) * LANES);
        if (from >= to) return;
        if (!dense)
            for (int t = 0; t < tokens; t++) std::memset(m.y + (size_t)t * width + from, 0, sizeof(float) * (to - from));
        for (const Part& part : parts) {
            const bool first = part.network == &layer.dense;
            multiply(part.network->down, panel, count, *part.hidden, part.first_row, part.rows,
                     [&](int r, int n, int column, int columns, float* block, int stride) {
                         if (first) to_stream.add(part.first_row + r, n, column, columns, block, stride);
                         const int valid = std::min(columns, width - column);
                         for (int i = 0; i < n; i++) {
                             const int row = part.first_row + r + i;
                             float* y = m.y + (size_t)(first ? row : m.token_of_row[row]) * width + column;
                             const float* from = block + (size_t)i * stride;
                             if (first) {
                                 for (int c = 0; c < valid; c++) y[c] = from[c];
                             } else {
                                 const float weight = m.weight_of_row[row];
                                 for (int c = 0; c < valid; c++) y[c] += weight * from[c];
                             }
                         }
                     });
        }
    });
}

}  // namespace fulmen
