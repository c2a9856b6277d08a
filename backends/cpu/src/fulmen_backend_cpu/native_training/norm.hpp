// Root-mean-square normalisation, alone or followed by the rotation of heads, both ways.
//
// Legend: N tokens, D width, H heads, h head width. `rstd` is 1 / sqrt(mean(x^2) + eps), one for each normalised vector.
#pragma once

#include "rows.hpp"

namespace fulmen {

template <class X>
inline float inverse_rms(const X* x, int width, float eps) {
    f32x16 squares{};
    for (int d = 0; d < width; d += LANES) {
        const f32x16 v = get(x + d);
        squares += v * v;
    }
    return 1.0f / std::sqrt(sum(squares) / (float)width + eps);
}

template <class X, class Y>
void norm_forward(const X* x_ND, const float* weight_D, Y* y_ND, float* rstd_N, int64_t rows, int width, float eps, int threads) {
    for_rows(rows, threads, [&](int64_t n) {
        const X* x = x_ND + n * width;
        const float rstd = rstd_N[n] = inverse_rms(x, width, eps);
        for (int d = 0; d < width; d += LANES) put(y_ND + n * width + d, get(x + d) * rstd * get(weight_D + d));
    });
}

template <class X, class Y>
void norm_backward(const Y* grad_ND, const X* x_ND, const float* weight_D, const float* rstd_N, X* grad_x_ND, float* grad_weight_D,
                   int64_t rows, int width, int threads) {
    sum_rows(rows, width, threads, grad_weight_D, [&](int64_t n, float* grad_weight) {
        const X* x = x_ND + n * width;
        const Y* grad = grad_ND + n * width;
        const float rstd = rstd_N[n];
        f32x16 along{};
        for (int d = 0; d < width; d += LANES) {
            const f32x16 unit = get(x + d) * rstd, g = get(grad + d);
            along += g * get(weight_D + d) * unit;
            put(grad_weight + d, get(grad_weight + d) + g * unit);
        }
        const float mean = sum(along) / (float)width;
        for (int d = 0; d < width; d += LANES)
            put(grad_x_ND + n * width + d, rstd * (get(grad + d) * get(weight_D + d) - get(x + d) * (rstd * mean)));
    });
}

// Heads of x, `stride` elements from token to token, normalised if there is a weight, then rotated by their token's angles: pairs
// (j, j + h/2). Angles repeat after `angle_rows` tokens.
template <class T>
void heads_forward(const T* x, int64_t stride, const float* weight_h, const float* cos, const float* sin, int64_t angle_rows,
                   T* y_NHh, float* rstd_NH, int64_t tokens, int heads, int width, float eps, int threads) {
    const int half = width / 2;
    for_rows(tokens, threads, [&](int64_t n) {
        const float *c = cos + n % angle_rows * half, *s = sin + n % angle_rows * half;
        for (int head = 0; head < heads; head++) {
            const T* in = x + n * stride + head * width;
            T* out = y_NHh + (n * heads + head) * width;
            const float rstd = weight_h ? inverse_rms(in, width, eps) : 1.0f;
            if (weight_h) rstd_NH[n * heads + head] = rstd;
            for (int j = 0; j < half; j += LANES) {
                f32x16 a = get(in + j), b = get(in + half + j);
                if (weight_h) {
                    a = a * rstd * get(weight_h + j);
                    b = b * rstd * get(weight_h + half + j);
                }
                put(out + j, a * get(c + j) - b * get(s + j));
                put(out + half + j, b * get(c + j) + a * get(s + j));
            }
        }
    });
}

template <class T>
void heads_backward(const T* grad_NHh, const T* x, int64_t stride, const float* weight_h, const float* cos, const float* sin,
                    int64_t angle_rows, const float* rstd_NH, T* grad_x, int64_t grad_stride, float* grad_weight_h, int64_t tokens,
                    int heads, int width, int threads) {
    const int half = width / 2;
    sum_rows(tokens, width, threads, grad_weight_h, [&](int64_t n, float* grad_weight) {
        const float *c = cos + n % angle_rows * half, *s = sin + n % angle_rows * half;
        for (int head = 0; head < heads; head++) {
            const T *in = x + n * stride + head * width, *grad = grad_NHh + (n * heads + head) * width;
            T* out = grad_x + n * grad_stride + head * width;
            const float rstd = weight_h ? rstd_NH[n * heads + head] : 1.0f;
            f32x16 along{};
            for (int j = 0; j < half && weight_h; j += LANES) {
                const f32x16 ga = get(grad + j) * get(c + j) + get(grad + half + j) * get(s + j);
                const f32x16 gb = get(grad + half + j) * get(c + j) - get(grad + j) * get(s + j);
                const f32x16 a = get(in + j) * rstd, b = get(in + half + j) * rstd;
                along += ga * get(weight_h + j) * a + gb * get(weight_h + half + j) * b;
                put(grad_weight + j, get(grad_weight + j) + ga * a);
                put(grad_weight + half + j, get(grad_weight + half + j) + gb * b);
            }
            const float mean = sum(along) / (float)width * rstd;
            for (int j = 0; j < half; j += LANES) {
                f32x16 ga = get(grad + j) * get(c + j) + get(grad + half + j) * get(s + j);
                f32x16 gb = get(grad + half + j) * get(c + j) - get(grad + j) * get(s + j);
                if (weight_h) {
                    ga = rstd * (ga * get(weight_h + j) - get(in + j) * mean);
                    gb = rstd * (gb * get(weight_h + half + j) - get(in + half + j) * mean);
                }
                put(out + j, ga);
                put(out + half + j, gb);
            }
        }
    });
}

}  // namespace fulmen
