// Adapters: packing, and the two halves of what they add.
#include "adapter.hpp"

#include "model.hpp"

namespace fulmen {
namespace {

constexpr int ROWS = 8 * MAX_ROWS;  // of a task: A stays in the second cache meanwhile
constexpr int64_t TOO_LITTLE = 200'000;  // multiply-adds that are not worth handing out

// `inputs` of some rows times panels that lie side by side, stored over `out` ([rows][stride]) or added to it.
template <bool ADD>
void multiply_panels(const float* weights, int panels, int inputs, const float* x, int x_stride, int rows, float* out, int stride) {
    Operands o{};
    o.panel_bytes = sizeof(float) * LANES * inputs;
    o.blocks = 1;
    o.inputs = inputs;
    o.row_bytes = sizeof(float) * x_stride;
    o.stride = stride;
    for (int p = 0; p < panels;) {
        const int width = panels - p >= WIDE ? WIDE : 1;
        o.panels = (const uint8_t*)weights + o.panel_bytes * p;
        for (int r = 0; r < rows; r += MAX_ROWS) {
            o.rows = (const uint8_t*)(x + (size_t)r * x_stride);
            o.out = out + (size_t)r * stride + p * LANES;
            const int count = std::min(MAX_ROWS, rows - r);
            if (width == WIDE)
                multiply_rows<F32Weights, WIDE, ADD>(count, o);
            else
                multiply_rows<F32Weights, 1, ADD>(count, o);
        }
        p += width;
    }
}

// low_rank = A x for some rows.
void project(Model& m, const Matrix& a, const Rows& x, int first_row, int rows, int worker) {
    for (int r = 0; r < rows; r += MAX_ROWS) {
        const int count = std::min(MAX_ROWS, rows - r);
        const float* floats = (const float*)x.data + (size_t)(first_row + r) * x.padded_inputs;
        if (x.format == Format::BF16) {
            float* to = m.widened + (size_t)worker * MAX_ROWS * m.widened_stride;
            const uint16_t* from = (const uint16_t*)x.row(first_row + r);
            for (int i = 0; i < count * x.padded_inputs; i += LANES) store(to + i, from_bf16(load<u16x16>(from + i)));
            floats = to;
        }
        float* out = m.low_rank + (size_t)(first_row + r) * m.low_rank_stride;
        multiply_panels<false>((const float*)a.data, a.panels, a.padded_inputs, floats, x.padded_inputs, count, out, m.low_rank_stride);
    }
}

}  // namespace

void Adapter::set(int layer, Product product, const float* a, const float* b, int rank, int inputs, const int32_t* rows, int outputs) {
    Delta delta;
    delta.a = Matrix::shaped(Format::F32, rank, inputs);
    delta.a.panels = (rank + LANES - 1) / LANES;  // no kernel reads beyond them
    delta.a.data = memory.take(delta.a.bytes());
    std::vector<int32_t> in_order(delta.a.panels * LANES, -1);
    for (int i = 0; i < rank; i++) in_order[i] = i;
    const Source source{a, Format::F32, inputs, 1};
    for (int panel = 0; panel < delta.a.panels; panel++) pack_panel(delta.a, panel, source, in_order.data());

    const int panels = Matrix::shaped(Format::F32, outputs, rank).panels;
    size_t floats = 0;
    for (int panel = 0; panel < panels; panel++) {
        DeltaPanel of{rank, 0, nullptr};
        for (int i = panel * LANES; i < std::min(outputs, (panel + 1) * LANES); i++)
            for (int k = 0; rows[i] >= 0 && k < rank; k++)
                if (b[(size_t)rows[i] * rank + k] != 0) of.begin = std::min(of.begin, k), of.end = std::max(of.end, k + 1);
        if (of.end == 0) of.begin = 0;
        delta.b.push_back(of);
        floats += (size_t)(of.end - of.begin) * LANES;
    }
    float* to = memory.array<float>(floats);
    for (int panel = 0; panel < panels; panel++) {
        DeltaPanel& of = delta.b[panel];
        of.data = to;
        for (int k = of.begin; k < of.end; k++, to += LANES)
            for (int lane = 0, i = panel * LANES; lane < LANES; lane++, i++)
                to[lane] = i < outputs && rows[i] >= 0 ? b[(size_t)rows[i] * rank + k] : 0;
    }
    layers[layer][(int)product] = std::move(delta);
}

Deltas::Deltas(Model& m, int layer, Product product, const Rows& x) : layer_(layer), product_(product) {
    struct Task {
        const Matrix* a;
        int first, rows;
    };
    std::vector<Task> tasks;
    int64_t work = 0;
    for (const AdaptedRows& group : m.adapted_rows) {
        const Matrix& a = group.adapter->layers[layer][(int)product].a;
        if (!a.data) continue;
        const int count = group.end - group.begin, calls = (count + MAX_ROWS - 1) / MAX_ROWS, threads = m.pool->threads();
        const int step = std::min(ROWS, (calls + 4 * threads - 1) / (4 * threads) * MAX_ROWS);
        for (int r = group.begin; r < group.end; r += step) tasks.push_back({&a, r, std::min(step, group.end - r)});
        work += (int64_t)count * a.padded_inputs * a.panels * LANES;
    }
    if (tasks.empty()) return;
    model_ = &m;
    auto run = [&](int index, int worker) { project(m, *tasks[index].a, x, tasks[index].first, tasks[index].rows, worker); };
    if (work < TOO_LITTLE)
        for (size_t i = 0; i < tasks.size(); i++) run((int)i, 0);
    else
        m.pool->run((int)tasks.size(), run);
}

void Deltas::add_all(int row, int rows, int column, int columns, float* block, int stride) const {
    const Model& m = *model_;
    for (const AdaptedRows& group : m.adapted_rows) {
        const int begin = std::max(row, group.begin), end = std::min(row + rows, group.end);
        const Delta& delta = group.adapter->layers[layer_][(int)product_];
        if (begin >= end || !delta.a.data) continue;
        float* out = block + (size_t)(begin - row) * stride;
        const int last = (column + columns) / LANES;
        for (int p = column / LANES; p < last;) {
            const DeltaPanel& first = delta.b[p];
            int panels = 1;
            while (p + panels < last && delta.b[p + panels].begin == first.begin && delta.b[p + panels].end == first.end) panels++;
            const float* x = m.low_rank + (size_t)begin * m.low_rank_stride + first.begin;
            if (first.end > first.begin)
                multiply_panels<true>(first.data, panels, first.end - first.begin, x, m.low_rank_stride, end - begin, out + p * LANES - column, stride);
            p += panels;
        }
    }
}

}  // namespace fulmen
