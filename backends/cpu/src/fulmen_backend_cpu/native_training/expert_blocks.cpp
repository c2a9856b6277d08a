// The experts in blocks, for ctypes. `bf16` says what the tokens' elements are.

#include "expert_blocks.hpp"

#include "exports.hpp"

using namespace fulmen;

EXPORT fulmen_experts_forward(int bf16, const void* x, const float* gate_up, const float* down, const int32_t* ends, const int32_t* pair,
                              const float* weight, int64_t experts, int64_t width, int64_t inner, int64_t top_k, uint16_t* packed,
                              uint16_t* gate_up_rows, uint16_t* y, int threads) {
    const ExpertSizes s{experts, width, inner, top_k};
    TYPED((experts_forward((const T*)x, gate_up, down, ends, pair, weight, s, packed, packed + experts * s.outer() * width, gate_up_rows, y,
                           threads)));
}

EXPORT fulmen_experts_backward(int bf16, const float* grad, const void* x, const float* gate_up, const float* down, const int32_t* ends,
                               const int32_t* pair, const float* weight, const uint16_t* gate_up_rows, int64_t experts, int64_t width,
                               int64_t inner, int64_t top_k, uint16_t* packed, uint16_t* grad_x, float* grad_weight, float* grad_gate_up,
                               float* grad_down, int threads) {
    const ExpertSizes s{experts, width, inner, top_k};
    TYPED((experts_backward(grad, (const T*)x, gate_up, down, ends, pair, weight, gate_up_rows, s, packed,
                            packed + experts * s.outer() * width, grad_x, grad_weight, grad_gate_up, grad_down, threads)));
}
