// The operations of a training step that torch has no fast form of, for ctypes: pointers into tensors, sizes, threads.

#include "experts.hpp"
#include "exports.hpp"
#include "layout.hpp"
#include "norm.hpp"
#include "softmax.hpp"

using namespace fulmen;

// Asked when the library is tried out.
extern "C" __attribute__((visibility("default"))) int fulmen_features() {
    float lanes[LANES];
    put(lanes, exponential(splat(1.0f)));
    return lanes[0] > 2.7f;
}

// Call `part` on each of torch's threads; what it calls of torch then runs on that thread alone.
EXPORT fulmen_on_each_thread(void (*part)(), int threads) {
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int i = 0; i < threads; i++) part();
}

EXPORT fulmen_norm_forward(int bf16, const float* x, const float* weight, void* y, float* rstd, int64_t rows, int64_t width, float eps,
                           int threads) {
    TYPED((norm_forward<float, T>(x, weight, (T*)y, rstd, rows, (int)width, eps, threads)));
}

EXPORT fulmen_norm_backward(int bf16, const void* grad, const float* x, const float* weight, const float* rstd, float* grad_x,
                            float* grad_weight, int64_t rows, int64_t width, int threads) {
    TYPED((norm_backward<float, T>((const T*)grad, x, weight, rstd, grad_x, grad_weight, rows, (int)width, threads)));
}

EXPORT fulmen_heads_forward(int bf16, const void* x, int64_t stride, const float* weight, const float* cos, const float* sin,
                            int64_t angle_rows, void* y, float* rstd, int64_t tokens, int64_t heads, int64_t width, float eps,
                            int threads) {
    TYPED((heads_forward<T>((const T*)x, stride, weight, cos, sin, angle_rows, (T*)y, rstd, tokens, (int)heads, (int)width, eps, threads)));
}

EXPORT fulmen_heads_backward(int bf16, const void* grad, const void* x, int64_t stride, const float* weight, const float* cos,
                             const float* sin, int64_t angle_rows, const float* rstd, void* grad_x, int64_t grad_stride,
                             float* grad_weight, int64_t tokens, int64_t heads, int64_t width, int threads) {
    TYPED((heads_backward<T>((const T*)grad, (const T*)x, stride, weight, cos, sin, angle_rows, rstd, (T*)grad_x, grad_stride, grad_weight,
                             tokens, (int)heads, (int)width, threads)));
}

EXPORT fulmen_softmax_forward(int bf16, void* scores, const int32_t* first, int64_t first_stride, int64_t kv_heads, int64_t blocks,
                              int64_t block, int64_t group, int64_t query, int64_t key, int64_t tokens, int64_t keys, int64_t rows,
                              float scale, int threads) {
    const Scores s{first, first_stride, kv_heads, blocks, block, group, query, key, tokens, keys};
    TYPED((softmax_forward<T>((T*)scores, s, rows, scale, threads)));
}

EXPORT fulmen_softmax_backward(int bf16, const void* weights, void* grads, int64_t rows, int64_t keys, float scale, int threads) {
    TYPED((softmax_backward<T>((const T*)weights, (T*)grads, rows, keys, scale, threads)));
}

EXPORT fulmen_pack_heads(int bf16, const void* x, int64_t batch, int64_t tokens, int64_t kv_heads, int64_t group, int64_t width,
                         int64_t stride, int64_t queries, void* out, int threads) {
    const Heads s{batch, tokens, kv_heads, group, width, stride};
    TYPED((pack_heads<T>((const T*)x, s, queries, (T*)out, threads)));
}

EXPORT fulmen_unpack_heads(int bf16, const void* x, int64_t batch, int64_t tokens, int64_t kv_heads, int64_t group, int64_t width,
                           int64_t queries, void* out, int threads) {
    const Heads s{batch, tokens, kv_heads, group, width, 0};
    TYPED((unpack_heads<T>((const T*)x, s, queries, (T*)out, threads)));
}

EXPORT fulmen_cut_windows(int bf16, const void* x, int64_t batch, int64_t tokens, int64_t kv_heads, int64_t width, int64_t stride,
                          int64_t blocks, int64_t block, int64_t keys, void* out, int threads) {
    const Heads s{batch, tokens, kv_heads, 1, width, stride};
    TYPED((cut_windows<T>((const T*)x, s, blocks, block, keys, (T*)out, threads)));
}

EXPORT fulmen_fold_windows(int bf16, const void* grads, int64_t batch, int64_t tokens, int64_t kv_heads, int64_t width, int64_t blocks,
                           int64_t block, int64_t keys, void* out, int threads) {
    const Heads s{batch, tokens, kv_heads, 1, width, 0};
    TYPED((fold_windows<T>((const T*)grads, s, blocks, block, keys, (T*)out, threads)));
}

EXPORT fulmen_cross_entropy(int bf16, void* logits, const int64_t* targets, const float* weights, float* losses, int64_t tokens,
                            int64_t vocabulary, int threads) {
    TYPED((cross_entropy<T>((T*)logits, targets, weights, losses, tokens, vocabulary, threads)));
}

extern "C" __attribute__((visibility("default"))) int64_t fulmen_sort_pairs(const int64_t* selected, int64_t pairs, int64_t experts,
                                                                            int64_t multiple, int32_t* ends, int32_t* row,
                                                                            int32_t* pair) {
    return sort_pairs(selected, pairs, (int)experts, (int)multiple, ends, row, pair);
}

EXPORT fulmen_gather(int bf16_in, int bf16, const void* x, const int32_t* pair, int64_t top_k, void* out, int64_t rows, int64_t width,
                     int threads) {
    if (bf16_in)
        TYPED((gather<uint16_t, T>((const uint16_t*)x, pair, (int)top_k, (T*)out, rows, (int)width, threads)));
    else
        TYPED((gather<float, T>((const float*)x, pair, (int)top_k, (T*)out, rows, (int)width, threads)));
}

EXPORT fulmen_combine(int bf16, int bf16_out, const void* y, const int32_t* row, int64_t top_k, void* out, int64_t tokens, int64_t width,
                      int threads) {
    if (bf16_out)
        TYPED((combine<T, uint16_t>((const T*)y, row, (int)top_k, (uint16_t*)out, tokens, (int)width, threads)));
    else
        TYPED((combine<T, float>((const T*)y, row, (int)top_k, (float*)out, tokens, (int)width, threads)));
}

EXPORT fulmen_swiglu_forward(int bf16, const void* gate_up, const int32_t* pair, const float* weight, void* hidden, int64_t rows,
                             int64_t width, int threads) {
    TYPED((swiglu_forward<T>((const T*)gate_up, pair, weight, (T*)hidden, rows, (int)width, threads)));
}

EXPORT fulmen_swiglu_backward(int bf16, const void* grad, const void* gate_up, const int32_t* pair, const float* weight,
                              void* grad_gate_up, void* hidden, float* grad_weight, int64_t rows, int64_t width, int threads) {
    TYPED((swiglu_backward<T>((const T*)grad, (const T*)gate_up, pair, weight, (T*)grad_gate_up, (T*)hidden, grad_weight, rows,
                              (int)width, threads)));
}
