// One step over all sequences: embedding, layers, and the head for each sequence's last token.
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

void step(Model& m, int count, const int32_t* slots, const int32_t* starts, const int32_t* counts, const int32_t* tokens,
          float* logits) {
    m.sequences.clear();
    int rows = 0;
    for (int i = 0; i < count; i++) {
        m.sequences.push_back({slots[i], starts[i], counts[i], rows, -1});
        for (int t = 0; t < counts[i]; t++) m.sequence_of_row[rows + t] = i;
        rows += counts[i];
    }
    Rows normed = m.normed;
    normed.format = rows_format(m, rows);
    const Layer* before = nullptr;
    for (const Layer& layer : m.layers) {
        for_rows(m, rows, [&](int r, int) {
            if (before)
                add(m, r, before->ffn_post_norm);
            else
                embed(m, tokens[r], m.x + (size_t)r * m.shape.width);
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
    for_rows(m, count, [&](int i, int) {
        const int last = m.sequences[i].row + m.sequences[i].count - 1;
        add(m, last, before->ffn_post_norm);
        norm_into(m, normed, last, m.norm, i);
    });
    product_to_floats(*m.pool, m.head, normed, count, logits, m.shape.vocab);
}

}  // namespace fulmen
