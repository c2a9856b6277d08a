// bfloat16 products whose operands lie in panels: small enough to be made of blocks that are in the cache already, where
// a library's product would be too short to share among threads and would order its operands anew in every call.
//
// A panel holds 16 columns of a matrix [K, C], pairs of rows side by side: [K/2][16][2]; a matrix is its panels one after
// the other. Legend: K summed, C columns (a multiple of 16).
#pragma once

#include "rows.hpp"

namespace fulmen {

// The left operand: the two elements of pair k of row r lie at `at + r * row + k * pair`.
struct Left {
    const uint16_t* at;
    int64_t row, pair;
};

// Rows as they are written, `width` elements each.
inline Left by_rows(const uint16_t* at, int64_t width) { return {at, width, 2}; }

// The 16 columns of a panel as rows: a matrix transposed, in the order in which it is the right operand.
inline Left by_columns(const uint16_t* panel) { return {panel, 2, 2 * LANES}; }

namespace detail {

// R rows times P panels, summed over all pairs in registers.
template <int R, int P>
void tile(const Left& a, const uint16_t* b, int64_t panel, int64_t pairs, float* out, int64_t stride, bool add) {
    f32x16 sums[R][P];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) sums[r][p] = add ? load_f32(out + r * stride + p * LANES) : f32x16{};
    for (int64_t k = 0; k < pairs; k++) {
#if defined(__AVX512BF16__)
        __m512bh columns[P];
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) columns[p] = (__m512bh)_mm512_loadu_si512(b + p * panel + k * 2 * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            const __m512bh value = (__m512bh)_mm512_set1_epi32(load<int32_t>(a.at + r * a.row + k * a.pair));
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) sums[r][p] = (f32x16)_mm512_dpbf16_ps((__m512)sums[r][p], columns[p], value);
        }
#else
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            const u32x16 column = load<u32x16>(b + p * panel + k * 2 * LANES);
            const f32x16 even = (f32x16)(column << 16), odd = (f32x16)(column & 0xffff0000u);
#pragma GCC unroll 12
            for (int r = 0; r < R; r++) {
                const uint16_t* value = a.at + r * a.row + k * a.pair;
                sums[r][p] += even * from_bf16(value[0]) + odd * from_bf16(value[1]);
            }
        }
#endif
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) store(out + r * stride + p * LANES, sums[r][p]);
}

using Tile = void (*)(const Left&, const uint16_t*, int64_t, int64_t, float*, int64_t, bool);

constexpr int MOST_PANELS = 4;
constexpr int MOST_ROWS[MOST_PANELS + 1] = {0, 12, 12, 8, 6};  // sums in 24 registers at most

inline Tile tile_of(int rows, int panels) {
#define ROW(P) tile<1, P>, tile<2, P>, tile<3, P>, tile<4, P>, tile<5, P>, tile<6, P>
    static const Tile tiles[MOST_PANELS][12] = {
        {ROW(1), tile<7, 1>, tile<8, 1>, tile<9, 1>, tile<10, 1>, tile<11, 1>, tile<12, 1>},
        {ROW(2), tile<7, 2>, tile<8, 2>, tile<9, 2>, tile<10, 2>, tile<11, 2>, tile<12, 2>},
        {ROW(3), tile<7, 3>, tile<8, 3>},
        {ROW(4)},
    };
#undef ROW
    return tiles[panels - 1][rows - 1];
}

// How many of `count` to take so that the parts, none above `most`, are as even as can be.
inline int even_part(int count, int most) {
    const int parts = (count + most - 1) / most;
    return (count + parts - 1) / parts;
}

}  // namespace detail

// out[rows][panels * 16] = left times panels, or plus that. `panel` is from panel to panel, `stride` from row to row of `out`.
inline void multiply(const Left& left, int rows, const uint16_t* right, int panels, int64_t pairs, int64_t panel, float* out,
                     int64_t stride, bool add = false) {
    for (int p = 0; p < panels;) {
        const int width = detail::even_part(panels - p, detail::MOST_PANELS);
        for (int r = 0; r < rows;) {
            const int height = detail::even_part(rows - r, detail::MOST_ROWS[width]);
            const Left from{left.at + r * left.row, left.row, left.pair};
            detail::tile_of(height, width)(from, right + p * panel, panel, pairs, out + r * stride + p * LANES, stride, add);
            r += height;
        }
        p += width;
    }
}

// Two rows of 16 side by side, as a panel holds them.
inline u32x16 paired(u16x16 even, u16x16 odd) {
#if defined(__AVX512BW__)
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,  //
                                           23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return (u32x16)_mm512_permutexvar_epi16(order, _mm512_inserti64x4(_mm512_castsi256_si512((__m256i)even), (__m256i)odd, 1));
#else
    return __builtin_convertvector(even, u32x16) | __builtin_convertvector(odd, u32x16) << 16;
#endif
}

inline u16x16 get_bf16(const float* from) { return to_bf16(load_f32(from)); }
inline u16x16 get_bf16(const uint16_t* from) { return load<u16x16>(from); }

// Rows [2 * pairs][C], `stride` elements apart, as panels whose next one is `panel` elements further: rows are summed over.
template <class T>
void panels_of_rows(const T* rows, int64_t stride, int64_t pairs, int columns, uint16_t* out, int64_t panel) {
    for (int c = 0; c < columns; c += LANES) {
        uint16_t* to = out + c / LANES * panel;
        for (int64_t k = 0; k < pairs; k++, to += 2 * LANES) {
            const T* even = rows + 2 * k * stride + c;
            store(to, paired(get_bf16(even), get_bf16(even + stride)));
        }
    }
}

// Rows [16][2 * pairs] as one panel with a column for each row: columns are summed over.
template <class T>
void panel_of_columns(const T* rows, int64_t stride, int64_t pairs, uint16_t* out) {
    constexpr int64_t STEP = LANES / 2;  // pairs that are read from a row at once
    uint32_t block[LANES][STEP];
    for (int64_t k = 0; k < pairs; k += STEP) {
        for (int r = 0; r < LANES; r++) store(block[r], get_bf16(rows + r * stride + 2 * k));
        for (int64_t i = 0; i < STEP; i++)
            for (int r = 0; r < LANES; r++) std::memcpy(out + (k + i) * 2 * LANES + 2 * r, &block[r][i], sizeof(uint32_t));
    }
}

}  // namespace fulmen
