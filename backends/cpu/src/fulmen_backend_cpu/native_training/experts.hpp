// Around the grouped products of the experts: rows sorted by expert, gathered, passed through SwiGLU and summed again.
//
// Legend: N tokens, K experts a token, M = N*K pairs, R rows sorted by expert, D width, F expert width.
#pragma once

#include "rows.hpp"

namespace fulmen {

// `count` rounded up to a multiple of `unit`, which doubles with every doubling of the count above 16 units: few different
// sizes, and filler of an eighth at most. A unit of one or two is kept.
inline int64_t rounded_rows(int64_t count, int64_t unit) {
    if (unit <= 2) return (count + unit - 1) / unit * unit;
    while (count > 16 * unit) unit *= 2;
    return (count + unit - 1) / unit * unit;
}

// Give every pair a row: experts in order, their pairs in order, each expert's rows rounded up. Returns R, which
// is below pairs * 9/8 + experts * unit.
inline int64_t sort_pairs(const int64_t* selected_M, int64_t pairs, int experts, int unit, int32_t* ends_E, int32_t* row_M,
                          int32_t* pair_R) {
    std::vector<int64_t> next(experts, 0);
    for (int64_t m = 0; m < pairs; m++) next[selected_M[m]]++;
    int64_t end = 0;
    for (int e = 0; e < experts; e++) {
        const int64_t count = next[e];
        next[e] = end;
        end += rounded_rows(count, unit);
        for (int64_t r = next[e] + count; r < end; r++) pair_R[r] = -1;
        ends_E[e] = (int32_t)end;
    }
    for (int64_t m = 0; m < pairs; m++) {
        const int64_t row = next[selected_M[m]]++;
        row_M[m] = (int32_t)row;
        pair_R[row] = (int32_t)m;
    }
    return end;
}

// Each row its token's vector; filler is zero.
template <class X, class T>
void gather(const X* x_ND, const int32_t* pair_R, int top_k, T* out_RD, int64_t rows, int width, int threads) {
    for_rows(rows, threads, [&](int64_t r) {
        T* out = out_RD + r * width;
        if (pair_R[r] < 0) return (void)std::fill(out, out + width, T(0));
        const X* x = x_ND + (int64_t)(pair_R[r] / top_k) * width;
        for (int d = 0; d < width; d += LANES) put(out + d, get(x + d));
    });
}

// Each token the sum of its rows.
template <class T, class Y>
void combine(const T* y_RD, const int32_t* row_M, int top_k, Y* out_ND, int64_t tokens, int width, int threads) {
    for_rows(tokens, threads, [&](int64_t n) {
        for (int d = 0; d < width; d += LANES) {
            f32x16 total{};
            for (int k = 0; k < top_k; k++) total += get(y_RD + (int64_t)row_M[n * top_k + k] * width + d);
            put(out_ND + n * width + d, total);
        }
    });
}

// silu(gate) * up * weight of the row's pair.
template <class T>
void swiglu_forward(const T* gate_up_RG, const int32_t* pair_R, const float* weight_M, T* hidden_RF, int64_t rows, int width,
                    int threads) {
    for_rows(rows, threads, [&](int64_t r) {
        const T *gate = gate_up_RG + r * 2 * width, *up = gate + width;
        const float weight = pair_R[r] < 0 ? 0.0f : weight_M[pair_R[r]];
        for (int f = 0; f < width; f += LANES) put(hidden_RF + r * width + f, silu(get(gate + f)) * get(up + f) * weight);
    });
}

// From the gradient of the weighted hidden units: those of gate, up and weight, and the hidden units once more.
template <class T>
void swiglu_backward(const T* grad_RF, const T* gate_up_RG, const int32_t* pair_R, const float* weight_M, T* grad_gate_up_RG, T* hidden_RF,
                     float* grad_weight_M, int64_t rows, int width, int threads) {
    for_rows(rows, threads, [&](int64_t r) {
        const T *gate = gate_up_RG + r * 2 * width, *up = gate + width, *grad = grad_RF + r * width;
        T* out = grad_gate_up_RG + r * 2 * width;
        const float weight = pair_R[r] < 0 ? 0.0f : weight_M[pair_R[r]];
        f32x16 along{};
        for (int f = 0; f < width; f += LANES) {
            const f32x16 a = get(gate + f), b = get(up + f), g = get(grad + f), s = sigmoid(a), h = a * s;
            along += g * h * b;
            put(hidden_RF + r * width + f, h * b * weight);
            put(out + f, g * weight * b * s * (1.0f + a * (1.0f - s)));
            put(out + width + f, g * weight * h);
        }
        if (pair_R[r] >= 0) grad_weight_M[pair_R[r]] = sum(along);
    });
}

}  // namespace fulmen
