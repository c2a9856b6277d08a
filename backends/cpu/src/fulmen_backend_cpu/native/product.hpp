// A product of some rows with some panels of a weight, in calls of the kernels; each finished block of results goes to
// an epilogue while it is in the first cache.
#pragma once

#include "amx.hpp"
#include "kernels.hpp"

#include <algorithm>
#include <vector>

namespace fulmen {

// Set once, before any model is made: whether large bfloat16 products go to the matrix units.
inline bool use_amx = false;

constexpr int AMX_FROM_ROWS = 16;  // with fewer, tiles are mostly filler
constexpr int AMX_STEP = 32;       // int8 weights are expanded for them in steps of this many tokens

#if defined(__AVX512F__)
constexpr int SKINNY = 8;  // panels of a call with one or two rows: enough sums to hide the latency of one
#else
constexpr int SKINNY = 4;
#endif

// Panels of an epilogue's block at least: of a gate and what it gates, which alternate.
constexpr int PAIR = WIDE < 2 ? 2 : WIDE;

namespace detail {

// The rows of a call: as even as can be, so that no call has a single row left.
inline int rows_per_call(int rows, int most) {
    const int calls = (rows + most - 1) / most;
    return (rows + calls - 1) / calls;
}

template <class Kernel, class Epilogue>
void multiply_with(const Matrix& w, int first_panel, int panels, const Rows& x, int first_row, int rows, const Epilogue& epilogue) {
    alignas(64) float block[MAX_ROWS * SKINNY * LANES];
    const int step = rows_per_call(rows, Kernel::MOST_ROWS);
    for (int p = 0; p < panels;) {
        const bool skinny = step <= 2 && panels - p >= SKINNY;
        const int width = skinny ? SKINNY : PAIR;
        Operands o{};
        o.panels = w.panel(first_panel + p);
        o.panel_bytes = w.panel_bytes();
        o.blocks = 1;
        o.inputs = w.padded_inputs;
        o.row_bytes = x.row_bytes();
        o.groups = x.groups();
        o.panel_scales = w.scales + (size_t)(first_panel + p) * LANES;
        o.out = block;
        o.stride = width * LANES;
        // Spread the next panels over the calls of these: with one call four lines a step, with four or more one.
        const uint8_t* next = w.panel(first_panel + p + width);
        const int lines = std::max(1, WIDE * step / rows);
        for (int r = 0; r < rows; r += step) {
            const size_t at = (size_t)(r / step) * lines * w.panel_bytes();
            o.ahead_lines = !skinny && at < WIDE * w.panel_bytes() ? lines : 0;
            o.ahead = next + at;
            const int count = rows - r < step ? rows - r : step;
            o.rows = x.row(first_row + r);
            if (x.format == Format::I8) {
                o.row_scales = x.scales + (size_t)(first_row + r) * o.groups;
                o.row_offsets = x.offsets + (size_t)(first_row + r) * o.groups;
            }
            if (!skinny)
                for (int q = 0; q < PAIR; q += WIDE) {
                    o.panels = w.panel(first_panel + p + q);
                    o.panel_scales = w.scales + (size_t)(first_panel + p + q) * LANES;
                    o.out = block + q * LANES;
                    multiply_rows<Kernel, WIDE, false>(count, o);
                }
            else if (count == 1)
                Kernel::template multiply<1, SKINNY, false>(o);
            else
                Kernel::template multiply<2, SKINNY, false>(o);
            epilogue(r, count, (first_panel + p) * LANES, width * LANES, block, o.stride);
        }
        p += width;
    }
}

#if defined(FULMEN_AMX)

// Two int8 panels as bfloat16 ones, scaled: [2][padded inputs * 16].
inline void expand_panels(const Matrix& w, int panel, uint16_t* to) {
    for (int p = 0; p < 2; p++, to += (size_t)w.padded_inputs * LANES) {
        const uint8_t* from = w.panel(panel + p);
        const float* scales = w.scales + (size_t)(panel + p) * LANES;
        for (int k = 0; k < w.padded_inputs; k++)
            for (int lane = 0; lane < LANES; lane++) {
                const int q = (int)from[((size_t)(k / 4) * LANES + lane) * 4 + k % 4] - 128;
                to[((size_t)(k / 2) * LANES + lane) * 2 + k % 2] = to_bf16((float)q * scales[lane]);
            }
    }
}

template <class Epilogue>
void multiply_amx(const Matrix& w, int first_panel, int panels, const Rows& x, int first_row, int rows, const Epilogue& epilogue) {
    alignas(64) float block[32 * 32];
    thread_local std::vector<uint16_t> expanded;
    configure_tiles();
    for (int p = 0; p < panels; p += 2) {
        const uint8_t* pair = w.panel(first_panel + p);
        size_t panel_bytes = w.panel_bytes();
        if (w.format == Format::I8) {
            panel_bytes = (size_t)w.padded_inputs * LANES * 2;
            expanded.resize(panel_bytes);  // two panels of half as many elements as bytes
            expand_panels(w, first_panel + p, expanded.data());
            pair = (const uint8_t*)expanded.data();
        }
        for (int r = 0; r < rows; r += 32) {
            const int count = rows - r < 32 ? rows - r : 32;
            amx_block(pair, panel_bytes, 0, 1, x.row(first_row + r), x.row_bytes(), w.padded_inputs, count > TILE_ROWS, block, 32);
            epilogue(r, count, (first_panel + p) * LANES, 2 * LANES, block, 32);
        }
    }
    release_tiles();
}

#endif

}  // namespace detail

// Multiply `rows` rows of `x` from `first_row` on with `panels` panels of `w` from `first_panel` on (multiples of 4).
// Calls epilogue(row - first_row, rows, first output, outputs, block, stride) for each finished block.
template <class Epilogue>
void multiply(const Matrix& w, int first_panel, int panels, const Rows& x, int first_row, int rows, const Epilogue& epilogue) {
#if defined(FULMEN_AMX)
    if (use_amx && x.format == Format::BF16 && (rows >= AMX_FROM_ROWS || w.format == Format::I8))
        return detail::multiply_amx(w, first_panel, panels, x, first_row, rows, epilogue);
#endif
    if (w.format == Format::F32)
        detail::multiply_with<F32Weights>(w, first_panel, panels, x, first_row, rows, epilogue);
    else if (w.format == Format::BF16 && x.format == Format::BF16)
        detail::multiply_with<Bf16Weights>(w, first_panel, panels, x, first_row, rows, epilogue);
    else if (w.format == Format::BF16)
        detail::multiply_with<Bf16WeightsF32Rows>(w, first_panel, panels, x, first_row, rows, epilogue);
    else if (x.format == Format::I8)
        detail::multiply_with<I8Weights>(w, first_panel, panels, x, first_row, rows, epilogue);
    else
        detail::multiply_with<I8WeightsF32Rows>(w, first_panel, panels, x, first_row, rows, epilogue);
}

}  // namespace fulmen
