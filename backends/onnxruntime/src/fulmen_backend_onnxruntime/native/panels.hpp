// Products of rows rounded to 8 bits with weights of 8 or 4 bits that have a scale for each block of inputs, by VPDPBUSD.
//
// Weights lie in panels of 64 outputs: for each four inputs the four levels of every output side by side, in the order in
// which a product reads them. A level is q + 128, or q + 8; what that adds is taken off by the number that a sum starts from.
//
// Legend: N outputs, K inputs (whole blocks), C blocks of inputs, P outputs of a panel, M rows of a call.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "arena.hpp"
#include "operator.hpp"

namespace fulmen {

constexpr int LANES = 16;
constexpr int PANEL = 64;  // outputs
constexpr int VECTORS = PANEL / LANES;
constexpr int MOST_ROWS = 3;  // of a call: sums of integers and of floats for more would not fit into the registers

// The lanes of a vector that the last `left` values take.
inline __mmask16 lanes(int left) { return left >= LANES ? 0xffff : (__mmask16)((1u << left) - 1); }

// 0, 1, 2, ... up to `count` at least: the rows of a product that takes them as they come.
inline const int* in_order(int count) {
    static thread_local std::vector<int> numbers;
    while ((int)numbers.size() < count) numbers.push_back((int)numbers.size());
    return numbers.data();
}

// How the inputs of an output are divided, and in how many bits its weights are.
struct Blocks {
    int count, size, bits;

    int bytes() const { return count * size * bits / 8; }
};

// Rows of inputs, rounded block by block: [rows][K] with scales and sums of levels [rows][C].
struct Rows {
    int inputs = 0, block = 0, blocks = 0;
    std::vector<int8_t> data;
    std::vector<float> scales;
    std::vector<int32_t> sums;

    void reshape(int rows, int new_inputs, int new_block) {
        inputs = new_inputs, block = new_block, blocks = (new_inputs + new_block - 1) / new_block;
        data.resize((size_t)rows * width());
        scales.resize((size_t)rows * blocks);
        sums.resize((size_t)rows * blocks);
    }

    int width() const { return blocks * block; }
    const int8_t* row(int index) const { return data.data() + (size_t)index * width(); }
    const float* row_scales(int index) const { return scales.data() + (size_t)index * blocks; }
    const int32_t* row_sums(int index) const { return sums.data() + (size_t)index * blocks; }

    // Round `x`, of `inputs` floats, into row `index`.
    void put(int index, const float* x) {
        int8_t* to = data.data() + (size_t)index * width();
        for (int c = 0; c < blocks; c++) {
            const int first = c * block, count = std::min(block, inputs - first);
            const size_t at = (size_t)index * blocks + c;
            put_block(to + first, x + first, count, scales[at], sums[at]);
            std::memset(to + first + count, 0, block - count);
        }
    }

private:
    static void put_block(int8_t* to, const float* x, int count, float& scale, int32_t& sum) {
        __m512 most = _mm512_setzero_ps();
        for (int k = 0; k < count; k += LANES) most = _mm512_max_ps(most, _mm512_abs_ps(part(x, k, count)));
        const float largest = _mm512_reduce_max_ps(most);
        scale = largest / 127.0f;
        const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
        __m512i sums = _mm512_setzero_si512();
        for (int k = 0; k < count; k += LANES) {
            const __m512i levels = _mm512_cvtps_epi32(_mm512_mul_ps(part(x, k, count), inverse));
            sums = _mm512_add_epi32(sums, levels);
            _mm_mask_storeu_epi8(to + k, lanes(count - k), _mm512_cvtsepi32_epi8(levels));
        }
        sum = _mm512_reduce_add_epi32(sums);
    }

    static __m512 part(const float* x, int k, int count) { return _mm512_maskz_loadu_ps(lanes(count - k), x + k); }
};

// A packed weight of 8 or 4 bits: levels [N / P][K / 4][P][4], of 4 bits [N / P][K / 8][P][4] with the first four inputs in the
// low halves of the bytes and the next four in the high ones, and scales [N / P][C][P].
class Panels {
public:
    // Pack levels [outputs][C * block], two to a byte if they have 4 bits, and scales [outputs][C]; output n of the product
    // is row `row_of(n)` of them, and those where that is negative are filler.
    template <class RowOf>
    Panels(const Tensor& levels, const Tensor& scales, size_t offset, int outputs, Blocks blocks, const RowOf& row_of)
        : count_((outputs + PANEL - 1) / PANEL), blocks_(blocks), data_(count_ * panel_bytes()),
          scales_(count_ * panel_scales() * sizeof(float)) {
        for (int n = 0; n < count_ * PANEL; n++) {
            const int row = n < outputs ? row_of(n) : -1;
            uint8_t* to = data_.as<uint8_t>() + (n / PANEL) * panel_bytes() + (n % PANEL) * 4;
            float* scale = scales_.as<float>() + (n / PANEL) * panel_scales() + n % PANEL;
            const size_t at = offset + std::max(row, 0);
            const uint8_t* from = levels.bytes() + at * blocks.bytes();
            for (int quad = 0; quad < blocks.bytes() / 4; quad++, to += 4 * PANEL) put_quad(to, from + quad * 4, row >= 0);
            for (int c = 0; c < blocks.count; c++) scale[c * PANEL] = row < 0 ? 0.0f : scales.floats()[at * blocks.count + c];
        }
    }

    int count() const { return count_; }

    // Multiply `rows` rows of `x`, those that `index` names, with one panel; `take(row, vectors)` gets each row's 64 sums.
    template <class Take>
    void multiply(int panel, const Rows& x, const int* index, int rows, const Take& take) const {
        if (blocks_.bits == 8)
            multiply_all<8>(panel, x, index, rows, take);
        else
            multiply_all<4>(panel, x, index, rows, take);
    }

private:
    size_t panel_bytes() const { return (size_t)blocks_.bytes() * PANEL; }
    size_t panel_scales() const { return (size_t)blocks_.count * PANEL; }

    void put_quad(uint8_t* to, const uint8_t* from, bool is_there) const {
        if (!is_there)
            std::memset(to, 0, 4);  // whatever it is, its scale is 0
        else if (blocks_.bits == 8)
            std::memcpy(to, from, 4);
        else
            for (int i = 0; i < 4; i++) to[i] = half(from, i) | half(from, i + 4) << 4;
    }

    static uint8_t half(const uint8_t* from, int i) { return from[i / 2] >> (i % 2 * 4) & 15; }

    template <int BITS, class Take>
    void multiply_all(int panel, const Rows& x, const int* index, int rows, const Take& take) const {
        for (int m = 0; m < rows;) {
            switch (rows - m) {
                case 1: m += multiply_few<BITS, 1>(panel, x, index, m, take); break;
                case 2: case 4: m += multiply_few<BITS, 2>(panel, x, index, m, take); break;
                default: m += multiply_few<BITS, MOST_ROWS>(panel, x, index, m, take);
            }
        }
    }

    template <int BITS, int M, class Take>
    int multiply_few(int panel, const Rows& x, const int* index, int first, const Take& take) const {
        const uint8_t* weights = data_.as<uint8_t>() + panel * panel_bytes();
        const float* scales = scales_.as<float>() + panel * panel_scales();
        const int8_t* row[M];
        for (int m = 0; m < M; m++) row[m] = x.row(index[first + m]);
        __m512 sums[M][VECTORS];
        for (int m = 0; m < M; m++)
            for (int v = 0; v < VECTORS; v++) sums[m][v] = _mm512_setzero_ps();
        for (int c = 0; c < blocks_.count; c++, scales += PANEL) {
            __m512i levels[M][VECTORS];
            for (int m = 0; m < M; m++) {
                const int zero = -x.row_sums(index[first + m])[c] * (1 << (BITS - 1));
                for (int v = 0; v < VECTORS; v++) levels[m][v] = _mm512_set1_epi32(zero);
            }
            for (int k = c * blocks_.size; k < (c + 1) * blocks_.size; k += 32 / BITS, weights += 4 * PANEL) {
                __m512i quads[VECTORS];
                for (int v = 0; v < VECTORS; v++) quads[v] = _mm512_load_si512(weights + v * 4 * LANES);
                if (BITS == 8) {
                    add_quads<M>(levels, quads, row, k);
                } else {
                    const __m512i low = _mm512_set1_epi8(15);
                    __m512i halves[VECTORS];
                    for (int v = 0; v < VECTORS; v++) halves[v] = _mm512_and_si512(quads[v], low);
                    add_quads<M>(levels, halves, row, k);
                    for (int v = 0; v < VECTORS; v++) halves[v] = _mm512_and_si512(_mm512_srli_epi16(quads[v], 4), low);
                    add_quads<M>(levels, halves, row, k + 4);
                }
            }
            for (int m = 0; m < M; m++) {
                const __m512 scale = _mm512_set1_ps(x.row_scales(index[first + m])[c]);
                for (int v = 0; v < VECTORS; v++) {
                    const __m512 both = _mm512_mul_ps(scale, _mm512_load_ps(scales + v * LANES));
                    sums[m][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(levels[m][v]), both, sums[m][v]);
                }
            }
        }
        for (int m = 0; m < M; m++) take(first + m, sums[m]);
        return M;
    }

    // Add the products of four inputs of each row from `k` on.
    template <int M>
    static void add_quads(__m512i (&levels)[M][VECTORS], const __m512i (&quads)[VECTORS], const int8_t* const (&row)[M], int k) {
        for (int m = 0; m < M; m++) {
            int32_t four;
            std::memcpy(&four, row[m] + k, 4);
            const __m512i inputs = _mm512_set1_epi32(four);
            for (int v = 0; v < VECTORS; v++) levels[m][v] = _mm512_dpbusd_epi32(levels[m][v], quads[v], inputs);
        }
    }

    int count_;
    Blocks blocks_;
    Memory data_, scales_;
};

}  // namespace fulmen
