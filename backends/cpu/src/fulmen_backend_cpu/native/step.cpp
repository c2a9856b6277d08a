// One step over all sequences: embedding, layers, and the head for the tokens whose logits are wanted.
#include "model.hpp"

namespace fulmen {
namespace {

void embed(const Model& m, int token, float* to) {
    const int width = m.shape.width;
    if (m.shape.tied)
        unpack_row(m.head, token, to);
    else if (m.embedding_format == Format::F32)
        std::memcpy(to, (const float*)m.embedding + (size_t)token * width, sizeof(float) * width);
    else
        for (int d = 0; d < width; d++) to[d] = from_bf16(((const uint16_t*)m.embedding)[(size_t)token * width + d]);
    if (m.shape.embedding_scale != 1.0f)
        for (int d = 0; d < width; d++) to[d] *= m.shape.embedding_scale;
}

// x += y, normed first if the model norms what it adds.
void add(Model& m, int row, const float* post_norm) {
    const int width = m.shape.width;
    float* x = m.x + (size_t)row * width;
    float* y = m.y + (size_t)row * width;
    if (post_norm) rms_norm(y, post_norm, m.shape.eps, width, y);
    for (int d = 0; d < width; d++) x[d] += y[d];
}

void norm_into(Model& m, const Rows& rows, int from, const float* weight, int to) {
    float* floats = m.normed_floats + (size_t)to * rows.padded_inputs;
    rms_norm(m.x + (size_t)from * m.shape.width, weight, m.shape.eps, m.shape.width, floats);
    rows.put(to, floats);
}

// Give each sequence its rows: those with the same adapter side by side, else in the caller's order.
int lay_out(Model& m, const StepTable& table) {
    m.sequences.clear();
    m.wanted_rows.clear();
    m.adapted_rows.clear();
    m.sequence_order.clear();
    const int32_t *pages = table.pages, *tokens = table.tokens;
    for (int i = 0; i < table.count; i++) {
        m.sequences.push_back({table.slots[i], table.starts[i], table.counts[i], 0, -1, pages, tokens});
        m.sequence_order.push_back(i);
        pages += table.page_counts[i];
        tokens += table.counts[i];
    }
    std::stable_sort(m.sequence_order.begin(), m.sequence_order.end(), [&](int a, int b) { return table.adapters[a] < table.adapters[b]; });
    int rows = 0;
    for (const int i : m.sequence_order) {
        Sequence& s = m.sequences[i];
        s.row = rows;
        for (int t = 0; t < s.count; t++, rows++) {
            m.sequence_of_row[rows] = i;
            m.tokens[rows] = s.tokens[t];
        }
        if (!table.adapters[i]) continue;
        const Adapter* adapter = m.adapters[table.adapters[i] - 1].get();
        if (m.adapted_rows.empty() || m.adapted_rows.back().adapter != adapter) m.adapted_rows.push_back({adapter, s.row, s.row});
        m.adapted_rows.back().end = rows;
    }
    for (int i = 0; i < table.count; i++)
        for (int t = table.wanted[i]; t > 0; t--) m.wanted_rows.push_back(m.sequences[i].row + m.sequences[i].count - t);
    return rows;
}

}  // namespace

void step(Model& m, const StepTable& table, bool hidden, float* results) {
    const int rows = lay_out(m, table);
    const Rows& normed = m.normed;
    const Layer* before = nullptr;
    for (const Layer& layer : m.layers) {
        for_rows(m, rows, [&](int r, int) {
            if (before)
                add(m, r, before->ffn_post_norm);
            else
                embed(m, m.tokens[r], m.x + (size_t)r * m.shape.width);
            norm_into(m, normed, r, layer.attention_norm, r);
        });
        attention_phase(m, layer, rows);
        for_rows(m, rows, [&](int r, int) {
            add(m, r, layer.attention_post_norm);
            norm_into(m, normed, r, layer.ffn_norm, r);
        });
        feed_forward_phase(m, layer, rows);
        before = &layer;
    }
    const int wanted = (int)m.wanted_rows.size();
    for_rows(m, wanted, [&](int i, int) {
        add(m, m.wanted_rows[i], before->ffn_post_norm);
        norm_into(m, normed, m.wanted_rows[i], m.norm, i);
    });
    if (!hidden) return logits_product(m, normed, wanted, results);
    const int width = m.shape.width;
    for (int i = 0; i < wanted; i++)
        std::memcpy(results + (size_t)i * width, m.normed_floats + (size_t)i * normed.padded_inputs, sizeof(float) * width);
}

}  // namespace fulmen
