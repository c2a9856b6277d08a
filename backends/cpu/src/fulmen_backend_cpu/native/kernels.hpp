// The inner products: a few rows of activations times a few panels of 16 outputs, accumulated in registers over all
// inputs. Every element is summed over the inputs in order, whatever the number of rows: a row's result does not depend
// on its neighbours.
//
// Legend: R rows, P panels, K inputs.
#pragma once

#include "matrix.hpp"

namespace fulmen {

#if defined(__AVX512F__)
constexpr int MAX_ROWS = 6;    // 6 x 4 accumulators, 4 weights and a row's value: 29 of 32 registers
constexpr int WIDE = 4;        // panels of a call
#else
constexpr int MAX_ROWS = 4;    // 4 x 2 registers of 8 lanes, 2 weights, a row's value: 12 of 16
constexpr int WIDE = 1;
#endif

#if defined(__AVX512BF16__)
constexpr bool BF16_PRODUCTS = true;
#else
constexpr bool BF16_PRODUCTS = false;
#endif

#if defined(__AVX512VNNI__)
constexpr bool I8_PRODUCTS = true;
#else
constexpr bool I8_PRODUCTS = false;
#endif

// The activations' format that weights of `format` are multiplied with.
inline Format activations_for(Format format) {
    if (format == Format::BF16 && BF16_PRODUCTS) return Format::BF16;
    if (format == Format::I8 && I8_PRODUCTS) return Format::I8;
    return Format::F32;
}

// What a call computes. `blocks` of `inputs` each; weights have one block, values of the cache one for 32 tokens.
struct Operands {
    const uint8_t* panels;
    size_t panel_bytes;
    size_t block_bytes;
    int blocks, inputs;
    const uint8_t* rows;
    size_t row_bytes;
    const float* row_scales;  // int8: [R][groups] with stride `groups`
    const int32_t* row_offsets;
    int groups;
    const float* panel_scales;  // int8: [P * 16]
    float* out;                 // [R][stride]
    int stride;
    const uint8_t* ahead;  // what the next calls will read: fetched while this one computes
    int ahead_lines;       // cache lines of it for each step of 64 bytes a panel
};

// Not for one or two rows, which memory binds: there the processor's own streams are a third faster than with this.
inline void fetch_ahead(const Operands& o, int step) {
    for (int i = 0; i < o.ahead_lines; i++) __builtin_prefetch(o.ahead + ((size_t)step * o.ahead_lines + i) * 64, 0, 2);
}

template <int R, int P, bool ADD>
inline void finish(f32x16 (&sums)[R][P], const Operands& o) {
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            float* to = o.out + (size_t)r * o.stride + p * LANES;
            store(to, ADD ? load_f32(to) + sums[r][p] : sums[r][p]);
        }
}

struct F32Weights {
    static constexpr int MOST_ROWS = MAX_ROWS;
    template <int R, int P, bool ADD>
    static void multiply(const Operands& o) {
        f32x16 sums[R][P] = {};
        for (int b = 0; b < o.blocks; b++) {
            const float* w = (const float*)(o.panels + b * o.block_bytes);
            const float* x = (const float*)o.rows + (size_t)b * o.inputs;
            for (int k = 0; k < o.inputs; k++) {
                f32x16 weights[P];
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) weights[p] = load_f32(w + p * (o.panel_bytes / 4) + (size_t)k * LANES);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) {
                    const f32x16 value = splat(x[r * (o.row_bytes / 4) + k]);
#pragma GCC unroll 8
                    for (int p = 0; p < P; p++) sums[r][p] += weights[p] * value;
                }
            }
        }
        finish<R, P, ADD>(sums, o);
    }
};

// bfloat16 weights, float32 rows: where the processor multiplies no bfloat16, and where rows must stay exact (router).
struct Bf16WeightsF32Rows {
    static constexpr int MOST_ROWS = MAX_ROWS;
    template <int R, int P, bool ADD>
    static void multiply(const Operands& o) {
        f32x16 sums[R][P] = {};
        for (int b = 0; b < o.blocks; b++) {
            const uint16_t* w = (const uint16_t*)(o.panels + b * o.block_bytes);
            const float* x = (const float*)o.rows + (size_t)b * o.inputs;
            for (int k = 0; k < o.inputs; k += 2)
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) {
                    const u32x16 pair = load<u32x16>(w + p * (o.panel_bytes / 2) + (size_t)k * LANES);
                    const f32x16 even = (f32x16)(pair << 16), odd = (f32x16)(pair & 0xffff0000u);
#pragma GCC unroll 8
                    for (int r = 0; r < R; r++) {
                        const float* at = x + r * (o.row_bytes / 4) + k;
                        sums[r][p] += even * at[0];
                        sums[r][p] += odd * at[1];
                    }
                }
        }
        finish<R, P, ADD>(sums, o);
    }
};

struct Bf16Weights {
    static constexpr int MOST_ROWS = MAX_ROWS;
    template <int R, int P, bool ADD>
    static void multiply(const Operands& o) {
#if defined(__AVX512BF16__)
        __m512 sums[R][P];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) sums[r][p] = _mm512_setzero_ps();
        for (int b = 0; b < o.blocks; b++) {
            const uint8_t* w = o.panels + b * o.block_bytes;
            const uint8_t* x = o.rows + (size_t)b * o.inputs * 2;
            for (int k = 0; k < o.inputs; k += 2) {
                if (R > 2) fetch_ahead(o, (b * o.inputs + k) / 2);
                __m512bh weights[P];
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) weights[p] = (__m512bh)_mm512_loadu_si512(w + p * o.panel_bytes + (size_t)k * 32);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) {
                    const __m512bh value = (__m512bh)_mm512_set1_epi32(load<int32_t>(x + r * o.row_bytes + (size_t)k * 2));
#pragma GCC unroll 8
                    for (int p = 0; p < P; p++) sums[r][p] = _mm512_dpbf16_ps(sums[r][p], weights[p], value);
                }
            }
        }
        f32x16 results[R][P];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) results[r][p] = (f32x16)sums[r][p];
        finish<R, P, ADD>(results, o);
#else
        (void)o;
        __builtin_trap();
#endif
    }
};

// As the matrix units compute, to the bit (but for numbers so small that they take them for zero): of each 32 inputs the
// even and the odd ones are summed apart, and both added to what was there. It reads memory a tenth faster than they do,
// for which one row waits.
struct Bf16WeightsInTileOrder {
    static constexpr int MOST_ROWS = 1;
    template <int R, int P, bool ADD>
    static void multiply(const Operands& o) {
        f32x16 sums[R][P] = {};
        for (int first = 0; first < o.inputs; first += 32) {
            f32x16 even[R][P] = {}, odd[R][P] = {};
            for (int k = first; k < first + 32; k += 2)
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) {
                    const u32x16 pair = load<u32x16>(o.panels + p * o.panel_bytes + (size_t)k * LANES * 2);
#pragma GCC unroll 8
                    for (int r = 0; r < R; r++) {
                        const uint32_t values = load<uint32_t>(o.rows + r * o.row_bytes + (size_t)k * 2);
                        const f32x16 left = (f32x16)(u32x16{} + (values << 16)), right = (f32x16)(u32x16{} + (values & 0xffff0000u));
                        even[r][p] = multiply_add((f32x16)(pair << 16), left, even[r][p]);
                        odd[r][p] = multiply_add((f32x16)(pair & 0xffff0000u), right, odd[r][p]);
                    }
                }
#pragma GCC unroll 8
            for (int r = 0; r < R; r++)
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) sums[r][p] += even[r][p] + odd[r][p];
        }
        finish<R, P, ADD>(sums, o);
    }
};

struct I8WeightsF32Rows {
    static constexpr int MOST_ROWS = MAX_ROWS;
    template <int R, int P, bool ADD>
    static void multiply(const Operands& o) {
        f32x16 sums[R][P] = {};
        const float* x = (const float*)o.rows;
        for (int k = 0; k < o.inputs; k += 4)
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) {
                const u32x16 quad = load<u32x16>(o.panels + p * o.panel_bytes + (size_t)k * LANES);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    const f32x16 w = __builtin_convertvector((i32x16)((quad >> (8 * i)) & 255u) - 128, f32x16);
#pragma GCC unroll 8
                    for (int r = 0; r < R; r++) sums[r][p] += w * x[r * (o.row_bytes / 4) + k + i];
                }
            }
#pragma GCC unroll 8
        for (int p = 0; p < P; p++)
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) sums[r][p] *= load_f32(o.panel_scales + p * LANES);
        finish<R, P, ADD>(sums, o);
    }
};

struct I8Weights {
    static constexpr int MOST_ROWS = 4;  // gcc 12 spills the sums of five rows and more: half the speed

    // Whole sums fill the registers; at the end of each group they are scaled and added to `out`, in the first cache.
    template <int R, int P, bool ADD>
    static void multiply(const Operands& o) {
#if defined(__AVX512VNNI__)
        static_assert(!ADD, "no product of int8 adds to its result");
        for (int g = 0; g < o.groups; g++) {
            __m512i whole[R][P];
#pragma GCC unroll 8
            for (int r = 0; r < R; r++)
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) whole[r][p] = _mm512_set1_epi32(o.row_offsets[(size_t)r * o.groups + g]);
            const uint8_t* w = o.panels + (size_t)g * GROUP * LANES;
            const uint8_t* x = o.rows + (size_t)g * GROUP;
            for (int k = 0; k < GROUP; k += 4) {
                if (R > 2) fetch_ahead(o, (g * GROUP + k) / 4);
                __m512i weights[P];
#pragma GCC unroll 8
                for (int p = 0; p < P; p++) weights[p] = _mm512_loadu_si512(w + p * o.panel_bytes + (size_t)k * LANES);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) {
                    const __m512i value = _mm512_set1_epi32(load<int32_t>(x + r * o.row_bytes + k));
#pragma GCC unroll 8
                    for (int p = 0; p < P; p++) whole[r][p] = _mm512_dpbusd_epi32(whole[r][p], weights[p], value);
                }
            }
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) {
                const f32x16 panel_scale = load_f32(o.panel_scales + p * LANES);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++) {
                    const f32x16 scale = panel_scale * o.row_scales[(size_t)r * o.groups + g];
                    float* to = o.out + (size_t)r * o.stride + p * LANES;
                    const f32x16 before = g ? load_f32(to) : f32x16{};
                    store(to, multiply_add((f32x16)_mm512_cvtepi32_ps(whole[r][p]), scale, before));
                }
            }
        }
#else
        (void)o;
        __builtin_trap();
#endif
    }
};

template <class Kernel, int P, bool ADD>
inline void multiply_rows(int rows, const Operands& o) {
    static_assert(MAX_ROWS <= 6, "one case for each number of rows");
    switch (rows) {
        case 1: return Kernel::template multiply<1, P, ADD>(o);
        case 2: return Kernel::template multiply<2, P, ADD>(o);
        case 3: return Kernel::template multiply<3, P, ADD>(o);
        case 4: return Kernel::template multiply<4, P, ADD>(o);
#if defined(__AVX512F__)
        case 5: return Kernel::template multiply<5, P, ADD>(o);
        case 6: return Kernel::template multiply<6, P, ADD>(o);
#endif
    }
}

}  // namespace fulmen
