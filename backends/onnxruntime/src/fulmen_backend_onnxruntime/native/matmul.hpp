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
        static thread_local Rows rounded;
        static thread_local std::vector<int> all;
        rounded.reshape(rows, inputs, block_);
        for (int row = 0; row < rows; row++) rounded.put(row, x.floats() + (size_t)row * inputs);
        while ((int)all.size() < rows) all.push_back((int)all.size());
        const Rows& known = rounded;
        const int* index = all.data();
        runtime.in_parallel(context, panels_.count(), [&](size_t panel) {
            const int first = (int)panel * PANEL;
            panels_.multiply((int)panel, known, index, rows, [&](int row, const __m512* sums) {
                for (int v = 0; v < VECTORS && first + v * LANES < outputs_; v++) {
                    const int left = outputs_ - first - v * LANES;
                    const __mmask16 mask = left >= LANES ? 0xffff : (__mmask16)((1u << left) - 1);
                    _mm512_mask_storeu_ps(y + (size_t)row * outputs_ + first + v * LANES, mask, sums[v]);
                }
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
