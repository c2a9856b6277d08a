// MatMulNBits of 8 or 4 bits: inputs [.., K] times weights [N, C, bytes of a block] with scales [N, C].
#pragma once

#include "panels.hpp"

namespace fulmen {

class MatMul {
public:
    static constexpr const char* NAME = "MatMulNBits";
    static constexpr size_t INPUTS = 3;
    static constexpr bool is_required(size_t) { return true; }

    MatMul(const Interface& runtime, const ort::KernelInfo* info)
        : runtime(runtime), outputs_(runtime.integer(info, "N")), block_(runtime.integer(info, "block_size")),
          panels_(packed(runtime.constant(info, 1), runtime.constant(info, 2), (int)runtime.integer(info, "bits"))) {}

    void compute(ort::KernelContext* context) const {
        const Tensor x = runtime.input(context, 0);
        std::vector<int64_t> dimensions = x.dimensions;
        dimensions.back() = outputs_;
        float* y = runtime.output(context, dimensions);
        const int rows = (int)x.rows(), inputs = (int)x.dimensions.back();
        static thread_local Rows memory;
        Rows& rounded = memory;  // to another thread the name would be its own
        rounded.reshape(rows, inputs, block_);
        for (int row = 0; row < rows; row++) rounded.put(row, x.floats() + (size_t)row * inputs);
        const int* all = in_order(rows);
        runtime.in_parallel(context, panels_.count(), [&](size_t panel) {
            const int first = (int)panel * PANEL;
            panels_.multiply((int)panel, rounded, all, rows, [&](int row, const __m512* sums) {
                float* to = y + (size_t)row * outputs_ + first;
                for (int v = 0; v < VECTORS && first + v * LANES < outputs_; v++)
                    _mm512_mask_storeu_ps(to + v * LANES, lanes(outputs_ - first - v * LANES), sums[v]);
            });
        });
    }

    const Interface runtime;

private:
    Panels packed(const Tensor& levels, const Tensor& scales, int bits) const {
        const Blocks blocks{(int)levels.dimensions[1], block_, bits};
        const Panels panels(levels, scales, 0, outputs_, blocks, [](int n) { return n; });
        let_go(levels.data, levels.size());
        return panels;
    }

    int outputs_, block_;
    Panels panels_;
};

}  // namespace fulmen
