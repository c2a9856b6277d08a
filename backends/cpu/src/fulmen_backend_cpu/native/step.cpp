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

}  // namespace

void step(Model& m, const StepTable& table, bool hidden, float* results) {
    m.sequences.clear();
    m.wanted_rows.clear();
    int rows = 0;
    const int32_t* pages = table.pages;
    for (int i = 0; i < table.count; i++) {
        const int tokens = table.counts[i];
        m.sequences.push_back({table.slots[i], table.starts[i], tokens, rows, -1, pages});
        for (int t = 0; t < tokens; t++) m.sequence_of_row[rows + t] = i;
        rows += tokens;
        for (int t = table.wanted[i]; t > 0; t--) m.wanted_rows.push_back(rows - t);
        pages += table.page_counts[i];
    }
    Rows normed = m.normed;
    normed.format = rows_format(m, rows);
    const Layer* before = nullptr;
    for (const Layer& layer : m.layers) {
        for_rows(m, rows, [&](int r, int) {
            if (before)
                add(m, r, before->ffn_post_norm);
            else
                embed(m, table.tokens[r], m.x + (size_t)r * m.shape.width);
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
    if (!hidden) return product_to_floats(*m.pool, m.head, normed, wanted, results, m.shape.vocab);
    const int width = m.shape.width;
    for (int i = 0; i < wanted; i++)
        std::memcpy(results + (size_t)i * width, m.normed_floats + (size_t)i * normed.padded_inputs, sizeof(float) * width);
}

}  // namespace fulmen
