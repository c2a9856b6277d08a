// Attention of bfloat16 queries, keys and values for ctypes: pointers into tensors, distances between tokens, sizes, threads.

#include "attention_backward.hpp"
#include "attention_forward.hpp"
#include "exports.hpp"

using namespace fulmen;

EXPORT fulmen_attention_forward(const uint16_t* q, int64_t q_stride, const uint16_t* k, int64_t k_stride, const uint16_t* v,
                                int64_t v_stride, const int32_t* first, int64_t first_stride, int64_t batch, int64_t tokens,
                                int64_t kv_heads, int64_t group, int64_t width, uint16_t* o, float* most, float* log_total, int threads) {
    const AttentionSizes s{batch, tokens, kv_heads, group, width};
    attention_forward({q, q_stride}, {k, k_stride}, {v, v_stride}, {first, first_stride}, s, o, most, log_total, threads);
}

EXPORT fulmen_attention_backward(const uint16_t* grad, int64_t grad_stride, const uint16_t* q, int64_t q_stride, const uint16_t* k,
                                 int64_t k_stride, const uint16_t* v, int64_t v_stride, const int32_t* first, int64_t first_stride,
                                 int64_t batch, int64_t tokens, int64_t kv_heads, int64_t group, int64_t width, const float* most,
                                 const float* log_total, uint16_t* grad_q, uint16_t* grad_k, uint16_t* grad_v, int threads) {
    const AttentionSizes s{batch, tokens, kv_heads, group, width};
    AttentionBackward({grad, grad_stride}, {q, q_stride}, {k, k_stride}, {v, v_stride}, most, log_total, {first, first_stride}, s,
                      {grad_q, grad_k, grad_v})
        .run(threads);
}
