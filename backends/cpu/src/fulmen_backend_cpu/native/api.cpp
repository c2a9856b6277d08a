// What Python calls: plain C functions over opaque handles. `fulmen_backend_cpu.native_library` declares them.
#include <chrono>
#include <cstdio>
#include <exception>

#include "model.hpp"

using namespace fulmen;

namespace {

thread_local char last_error[256];

template <class F>
int guarded(const F& f) {
    try {
        f();
        return 0;
    } catch (const std::bad_alloc&) {
        std::snprintf(last_error, sizeof last_error, "there is not enough memory");
    } catch (const std::exception& error) {
        std::snprintf(last_error, sizeof last_error, "%s", error.what());
    }
    return 1;
}

struct Handle {
    std::shared_ptr<Pool> pool;
    std::unique_ptr<Model> model;
};

float* floats(Model& m, const float* from, size_t count) {
    float* to = m.weights.array<float>(count);
    std::memcpy(to, from, sizeof(float) * count);
    return to;
}

}  // namespace

// Roles of weights and vectors, in the order of `native_library.Role`.
enum MatrixRole { QKV, OUT, ROUTER, DENSE_GATE_UP, DENSE_DOWN, EXPERT_GATE_UP, EXPERT_DOWN, HEAD };
enum VectorRole { ATTENTION_NORM, FFN_NORM, Q_NORM, K_NORM, ATTENTION_POST_NORM, FFN_POST_NORM, ROUTER_BIAS, NORM, COSINES, SINES };

extern "C" {

const char* fulmen_error() { return last_error; }

// Bits: 1 bfloat16 products, 2 int8 products, 4 matrix units built in, 8 matrix units found right, 16 AVX-512.
int fulmen_features() {
    static const bool works = amx_works();
    int bits = (BF16_PRODUCTS ? 1 : 0) | (I8_PRODUCTS ? 2 : 0) | (works ? 8 : 0);
#if defined(FULMEN_AMX)
    bits |= 4;
#endif
#if defined(__AVX512F__)
    bits |= 16;
#endif
    return bits;
}

void* fulmen_new(const Shape* shape, const LayerShape* layers, int threads) {
    auto handle = std::make_unique<Handle>();
    use_amx = fulmen_features() & 8;
    const int failed = guarded([&] {
        handle->pool = std::make_shared<Pool>(threads);
        handle->model = std::make_unique<Model>(*shape, layers, handle->pool);
    });
    return failed ? nullptr : handle.release();
}

void fulmen_delete(void* handle) { delete static_cast<Handle*>(handle); }

int64_t fulmen_kv_bytes(void* handle) { return (int64_t) static_cast<Handle*>(handle)->model->kv_bytes; }
int64_t fulmen_weight_bytes(void* handle) { return (int64_t) static_cast<Handle*>(handle)->model->weights.bytes(); }
int64_t fulmen_stalls(void* handle) { return static_cast<Handle*>(handle)->pool->stalls(); }

// Pack a weight. `rows` names the source's output for each of the `outputs` packed ones, -1 for none.
int fulmen_set_matrix(void* handle, int role, int layer, int expert, const void* data, int format, int64_t output_stride,
                      int64_t input_stride, const int32_t* rows, int outputs, int inputs) {
    return guarded([&] {
        Model& m = *static_cast<Handle*>(handle)->model;
        const Source source{data, (Format)format, output_stride, input_stride};
        // The router's products are float32: keep its weights as exact as they came.
        Matrix matrix = Matrix::shaped(role == ROUTER ? (Format)format : m.shape.weights, outputs, inputs);
        matrix.data = m.weights.take(matrix.bytes());
        if (matrix.format == Format::I8) matrix.scales = m.weights.array<float>((size_t)matrix.panels * LANES);
        std::vector<int32_t> map(matrix.panels * LANES, -1);
        for (int i = 0; i < outputs; i++) map[i] = rows ? rows[i] : i;
        m.pool->run(matrix.panels, [&](int panel, int) { pack_panel(matrix, panel, source, map.data()); });
        if (role == HEAD) {
            m.head = matrix;
            return;
        }
        Layer& l = m.layers[layer];
        switch (role) {
            case QKV: l.qkv = matrix; break;
            case OUT: l.out = matrix; break;
            case ROUTER: l.router = matrix; break;
            case DENSE_GATE_UP: l.dense.gate_up = matrix; break;
            case DENSE_DOWN: l.dense.down = matrix; break;
            case EXPERT_GATE_UP: l.experts[expert].gate_up = matrix; break;
            case EXPERT_DOWN: l.experts[expert].down = matrix; break;
        }
    });
}

int fulmen_set_vector(void* handle, int role, int layer, const float* data, int64_t count) {
    return guarded([&] {
        Model& m = *static_cast<Handle*>(handle)->model;
        float* vector = floats(m, data, count);
        switch (role) {
            case NORM: m.norm = vector; return;
            case COSINES: m.cosines = vector; return;
            case SINES: m.sines = vector; return;
        }
        Layer& l = m.layers[layer];
        switch (role) {
            case ATTENTION_NORM: l.attention_norm = vector; break;
            case FFN_NORM: l.ffn_norm = vector; break;
            case Q_NORM: l.q_norm = vector; break;
            case K_NORM: l.k_norm = vector; break;
            case ATTENTION_POST_NORM: l.attention_post_norm = vector; break;
            case FFN_POST_NORM: l.ffn_post_norm = vector; break;
            case ROUTER_BIAS: l.router_bias = vector; break;
        }
    });
}

int fulmen_set_embedding(void* handle, const void* data, int format, int64_t bytes) {
    return guarded([&] {
        Model& m = *static_cast<Handle*>(handle)->model;
        m.embedding = m.weights.take(bytes);
        m.embedding_format = (Format)format;
        std::memcpy(m.embedding, data, bytes);
    });
}

// Take a part of adapter `number`: see `Adapter::set`. The first makes the adapter.
int fulmen_set_delta(void* handle, int number, int layer, int product, const float* a, const float* b, int rank, int inputs,
                     const int32_t* rows, int outputs) {
    return guarded([&] {
        Model& m = *static_cast<Handle*>(handle)->model;
        std::unique_ptr<Adapter>& adapter = m.adapters[number - 1];
        if (!adapter) adapter = std::make_unique<Adapter>((int)m.layers.size());
        adapter->set(layer, (Product)product, a, b, rank, inputs, rows, outputs);
    });
}

void fulmen_drop_adapter(void* handle, int number) { static_cast<Handle*>(handle)->model->adapters[number - 1].reset(); }

int64_t fulmen_adapter_bytes(void* handle) {
    int64_t bytes = 0;
    for (const auto& adapter : static_cast<Handle*>(handle)->model->adapters)
        if (adapter) bytes += (int64_t)adapter->memory.bytes();
    return bytes;
}

// `table` is [6][count]: slots, starts, counts of tokens, of wanted results, of pages, numbers of adapters.
int fulmen_step(void* handle, int count, const int32_t* table, const int32_t* tokens, const int32_t* pages, int hidden, float* results) {
    return guarded([&] {
        const int32_t* row = table;
        StepTable t{count, row, row + count, row + 2 * count, row + 3 * count, row + 4 * count, row + 5 * count, tokens, pages};
        step(*static_cast<Handle*>(handle)->model, t, hidden, results);
    });
}

// `known`: they are what the latest step returned.
int fulmen_draw(void* handle, int rows, const float* logits, int known, const float* inverse_temperatures, const double* uniforms,
                int32_t* tokens) {
    return guarded([&] { draw(*static_cast<Handle*>(handle)->model, rows, logits, known, inverse_temperatures, uniforms, tokens); });
}

void fulmen_copy_slot(void* handle, int from, int to) {
    for (const Cache& cache : static_cast<Handle*>(handle)->model->caches)
        if (cache.window) cache.copy(from, to);
}

void fulmen_copy_page(void* handle, int from, int to) {
    for (const Cache& cache : static_cast<Handle*>(handle)->model->caches)
        if (!cache.window) cache.copy(from, to);
}

// out [rows][outputs] = x [rows][inputs] times weights [outputs][inputs], all floats, computed in `format` as a step does:
// for tests and benchmarks. Returns the fastest of `repeats` products in nanoseconds, packing left out; -1 on failure.
int64_t fulmen_product(int threads, int format, int rows, int outputs, int inputs, const float* x, const float* weights, float* out,
                       int repeats) {
    int64_t best = INT64_MAX;
    use_amx = fulmen_features() & 8;
    const int failed = guarded([&] {
        Pool pool(threads);
        Arena arena;
        Matrix w = Matrix::shaped((Format)format, outputs, inputs);
        w.data = arena.take(w.bytes());
        w.scales = arena.array<float>((size_t)w.panels * LANES);
        std::vector<int32_t> map(w.panels * LANES, -1);
        for (int i = 0; i < outputs; i++) map[i] = i;
        const Source source{weights, Format::F32, inputs, 1};
        for (int panel = 0; panel < w.panels; panel++) pack_panel(w, panel, source, map.data());
        Rows r;
        r.format = activations_for(w.format);
        r.inputs = inputs;
        r.padded_inputs = w.padded_inputs;
        r.data = arena.take((rows + 32) * (size_t)r.padded_inputs * 4);
        r.scales = arena.array<float>((size_t)rows * r.groups());
        r.offsets = arena.array<int32_t>((size_t)rows * r.groups());
        std::vector<float> padded(r.padded_inputs);
        for (int i = 0; i < rows; i++) {
            std::memcpy(padded.data(), x + (size_t)i * inputs, sizeof(float) * inputs);
            r.put(i, padded.data());
        }
        for (int i = 0; i < repeats; i++) {
            const auto begun = std::chrono::steady_clock::now();
            product_to_floats(pool, w, r, rows, out, outputs);
            best = std::min<int64_t>(best, std::chrono::nanoseconds(std::chrono::steady_clock::now() - begun).count());
        }
    });
    return failed ? -1 : best;
}

// Fill the rings of a slot, or a page, with NaN, as an earlier user might have left them: for tests.
void fulmen_poison(void* handle, int slot, int page) {
    for (Cache& cache : static_cast<Handle*>(handle)->model->caches)
        for (int head = 0; head < cache.kv_heads; head++) {
            const HeadCache at = cache.head(cache.window ? slot : page, head);
            std::memset(at.k, 0xff, cache.head_bytes());
            std::memset(at.v, 0xff, cache.head_bytes());
            if (cache.format != Format::I8) continue;
            std::memset(at.k_scales, 0xff, sizeof(float) * cache.padded);
            std::memset(at.v_scales, 0xff, sizeof(float) * cache.padded);
        }
}

}  // extern "C"
