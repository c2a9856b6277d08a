// A loaded model: its shape, its packed weights, its caches and the memory that a step works in. Nothing is allocated
// after loading, but for adapters.
//
// Legend: N tokens of a step, D model width, H heads, K kv heads, h head width, hp h rounded up to 16, E experts,
// k experts a token, F inner width.
#pragma once

#include <memory>
#include <vector>

#include "adapter.hpp"
#include "attention.hpp"
#include "pool.hpp"

namespace fulmen {

// As `fulmen_backend_cpu.native_library` declares it.
struct Shape {
    int32_t vocab, width, layers, heads, kv_heads, head_dim;
    int32_t experts, experts_per_token, expert_width;
    int32_t max_sequences, max_context, max_step_tokens, caches;
    int32_t slots, pages, page_tokens, window_slack;
    int32_t adapters, adapter_rank;  // that may be loaded, and the largest rank of one
    Format weights, kv;
    int32_t tied, qk_norm_whole, attention_gate, sigmoid_router, normalise_weights;
    float eps, router_scale, embedding_scale, clip_qkv;  // clip_qkv 0: none
};

struct LayerShape {
    int32_t window;  // 0: full
    int32_t cache, owns_kv, rotates;
    int32_t mixture;      // routed experts
    int32_t dense_width;  // of the dense FFN, or of the shared experts together; 0: none
};

struct FeedForward {
    Matrix gate_up, down;  // panels of gate_up alternate: 16 of gate, 16 of up
};

struct Layer {
    LayerShape shape{};
    Matrix qkv, out, router;  // rows of qkv: queries, then keys and values if owned, then the gate
    FeedForward dense;
    std::vector<FeedForward> experts;
    float *attention_norm = nullptr, *ffn_norm = nullptr, *q_norm = nullptr, *k_norm = nullptr;
    float *attention_post_norm = nullptr, *ffn_post_norm = nullptr, *router_bias = nullptr;
};

struct Sequence {
    int slot, start, count, row;  // row: of its first token among the step's
    int chunk_base;               // place of token `start` in the chunk cache, -1 if the sequence does not use it
    const int32_t* pages;         // of the full caches, one for each `page_tokens` positions
    const int32_t* tokens;        // that are new
};

// Of each stretch of neighbouring tokens of a row of logits: the largest, infinite if one is NaN, and the sum of
// exp((x - largest) / T).
struct Stretches {
    float *tops, *weights;
};
constexpr int STRETCH = 32;  // tokens: what every kernel's block is a multiple of

struct AttentionTask {
    const Sequence* sequence;
    int kv_head, first, tokens;  // of the sequence's new tokens
    int split, splits;           // of the keys
};

struct Model {
    Model(const Shape& shape, const LayerShape* layers, std::shared_ptr<Pool> pool);

    Shape shape;
    std::shared_ptr<Pool> pool;
    Arena weights, memory;

    std::vector<Layer> layers;
    Matrix head;
    uint8_t* embedding = nullptr;  // [V][D] in the weights' source format, if not tied
    Format embedding_format = Format::F32;
    float* norm = nullptr;
    float *cosines = nullptr, *sines = nullptr;  // [max_context][h/2]

    std::vector<Cache> caches;
    size_t kv_bytes = 0;
    Cache chunk;  // keys and values of chunks that would overwrite a ring before it is read

    int hp, group_heads, queries_width, kv_width, qkv_width;  // -, H/K, H*h, K*h, outputs of the widest qkv
    std::vector<std::unique_ptr<Attention>> attention;        // one for each thread

    // Memory of a step.
    float *x, *y, *normed_floats, *qkv, *attended_floats, *router_logits, *hidden_floats, *partials;
    Rows normed, attended, hidden, gathered, dense_hidden;
    uint8_t* queries;  // [K][N * H/K][hp]
    std::vector<Sequence> sequences;
    std::vector<AttentionTask> attention_tasks;
    std::vector<int32_t> sequence_of_row, wanted_rows, chosen, row_of_pair, token_of_row, expert_begin;
    std::vector<float> chosen_weights, weight_of_row;
    int row_stretches;
    float *stretch_tops, *stretch_weights;  // of the latest logits, row by row
    float *draw_tops, *draw_weights;        // of a draw, for each thread
    bool weighed = false;                   // whether there are weights of the latest logits
    bool draws = false;                     // at temperature 1, when last asked: then they will be wanted
    std::vector<int32_t> sequence_order, tokens;
    int max_splits;

    std::vector<std::unique_ptr<Adapter>> adapters;  // [adapters], number n at n - 1
    std::vector<AdaptedRows> adapted_rows;           // of the step, in order; empty if no sequence has an adapter
    float *low_rank = nullptr, *widened = nullptr;   // [N][low_rank_stride]: A x; some rows for each thread
    int low_rank_stride = 0, widened_stride = 0;

    Rows rows(Format format, int inputs, int count);
};

constexpr int SPLIT = 1024;  // keys of a task when one token attends: fixed, so that results do not depend on threads

// What the caller asks of a step, one entry for each sequence; tokens and page tables lie one after another.
struct StepTable {
    int count;
    const int32_t *slots, *starts, *counts, *wanted, *page_counts, *adapters;
    const int32_t *tokens, *pages;
};

// Results of the wanted tokens, in order: logits [.., V], or final hidden states [.., D] if `hidden`.
void step(Model& m, const StepTable& table, bool hidden, float* results);

// logits [rows][V] = x head, and the tops of their stretches, with weights at temperature 1 if the last draw wanted such.
void logits_product(Model& m, const Rows& x, int rows, float* logits);

// Draw a token from each of `rows` rows of logits [rows][V]: the likeliest where the inverse temperature is 0, else one from
// the softmax by a number in [0, 1). -1 where a row has NaN, or nothing finite at its top. `known`: they are the latest.
void draw(Model& m, int rows, const float* logits, bool known, const float* inverse_temperatures, const double* uniforms, int32_t* tokens);

// The parts of a step, each over the step's rows (N) or sequences.
void attention_phase(Model& m, const Layer& layer, int tokens);
void feed_forward_phase(Model& m, const Layer& layer, int tokens);

// The floats that `rows` were made of.
inline Rows as_floats(Rows rows, float* data) {
    rows.format = Format::F32;
    rows.data = (uint8_t*)data;
    return rows;
}

// Call f(row, worker) for all rows, in parallel if they are many.
template <class F>
void for_rows(Model& m, int rows, const F& f) {
    constexpr int TOGETHER = 4;
    if (rows < 2 * TOGETHER) {
        for (int r = 0; r < rows; r++) f(r, 0);
        return;
    }
    m.pool->run((rows + TOGETHER - 1) / TOGETHER, [&](int task, int worker) {
        for (int r = task * TOGETHER; r < std::min(rows, (task + 1) * TOGETHER); r++) f(r, worker);
    });
}

// Tasks of a product: panels [4 or 8 at once] times blocks of rows, as many as keep all threads busy.
struct Division {
    int panels, panel_step, rows, row_step;

    Division(int panels, int rows, int threads) : panels(panels), panel_step(rows <= 2 ? 8 : 4), rows(rows), row_step(rows) {
        while (tasks() < 4 * threads && row_step > 64) row_step = round_up(row_step / 2, 32);
    }
    int columns() const { return (panels + panel_step - 1) / panel_step; }
    int blocks() const { return (rows + row_step - 1) / row_step; }
    int tasks() const { return columns() * blocks(); }
    // Rows vary slowest: neighbours in time share rows and differ in weights.
    template <class F>
    void task(int index, const F& f) const {
        const int p = index % columns() * panel_step, block = index / columns(), r = block * row_step;
        f(p, std::min(panel_step, panels - p), r, std::min(row_step, rows - r));
    }
};

// out[row][output] = x W, clipped to W's outputs, and what `deltas` adds.
inline void product_to_floats(Pool& pool, const Matrix& w, const Rows& x, int rows, float* out, int stride, const Deltas& deltas = {}) {
    const Division division(w.panels, rows, pool.threads());
    pool.run(division.tasks(), [&](int index, int) {
        division.task(index, [&](int panel, int panels, int first_row, int count) {
            multiply(w, panel, panels, x, first_row, count, [&](int r, int n, int column, int columns, float* block, int block_stride) {
                const int valid = std::min(columns, w.outputs - column);
                if (valid <= 0) return;
                deltas.add(first_row + r, n, column, columns, block, block_stride);
                for (int i = 0; i < n; i++)
                    std::memcpy(out + (size_t)(first_row + r + i) * stride + column, block + (size_t)i * block_stride, sizeof(float) * valid);
            });
        });
    });
}

// x / sqrt(mean(x^2) + eps) * weight over `count` floats; `to` may be `x`.
inline void rms_norm(const float* x, const float* weight, float eps, int count, float* to) {
    f32x16 squares{};
    float tail = 0;
    int i = 0;
    for (; i + LANES <= count; i += LANES) squares += load_f32(x + i) * load_f32(x + i);
    for (int j = i; j < count; j++) tail += x[j] * x[j];
    const float scale = 1.0f / std::sqrt((sum(squares) + tail) / (float)count + eps);
    for (i = 0; i + LANES <= count; i += LANES) store(to + i, load_f32(x + i) * scale * load_f32(weight + i));
    for (; i < count; i++) to[i] = x[i] * scale * weight[i];
}

}  // namespace fulmen
