// A product of some rows with some panels of a weight, in calls of the kernels; each finished block of results goes to
// an epilogue while it is in the first cache.
#pragma once

#include "amx.hpp"
#include "kernels.hpp"

#include <algorithm>

namespace fulmen {

// Set once, before any model is made: whether products go to the matrix units. Those of fewer rows than these are computed
// without, to the same bits: where weights come from memory the units are no faster.
inline bool use_amx = false;

constexpr int AMX_BF16_ROWS = 2;
constexpr int AMX_INT8_ROWS = 12;

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

template <class Epilogue>
void multiply_amx(const Matrix& w, int first_panel, int panels, const Rows& x, int first_row, int rows, const Epilogue& epilogue) {
    alignas(64) float block[2 * TILE_ROWS * 4 * LANES];
    constexpr int stride = 4 * LANES;
    const int step = x.format == Format::I8 ? TILE_ROWS : 2 * TILE_ROWS;
    configure_tiles(TileShapes(x.format, std::min(rows, TILE_ROWS)));
    for (int p = first_panel; p < first_panel + panels; p += 4)
        for (int r = 0; r < rows; r += step) {
            const int count = std::min(step, rows - r), row = first_row + r;
            if (x.format == Format::I8) {
                const size_t group = (size_t)row * x.groups();
                const Int8Tiles tiles{w.panel(p), w.panel_bytes(), w.scales + (size_t)p * LANES, x.row(row), x.row_bytes(),
                                      x.scales + group, x.offsets + group, x.groups()};
                tiles.multiply(count, block);
            } else {
                Bf16Tiles tiles{w.panel(p), w.panel_bytes(), 0, 1, w.padded_inputs, x.row(row), x.row_bytes()};
                if (count <= TILE_ROWS) {
                    tiles.multiply<4, false>(block, stride);
                } else {
                    tiles.multiply<2, true>(block, stride);
                    tiles.panels = w.panel(p + 2);
                    tiles.multiply<2, true>(block + 2 * LANES, stride);
                }
            }
            epilogue(r, count, p * LANES, stride, block, stride);
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
    if (use_amx && x.format != Format::F32) {
        if (rows >= (x.format == Format::I8 ? AMX_INT8_ROWS : AMX_BF16_ROWS))
            return detail::multiply_amx(w, first_panel, panels, x, first_row, rows, epilogue);
        if (x.format == Format::BF16)
            return detail::multiply_with<Bf16WeightsInTileOrder>(w, first_panel, panels, x, first_row, rows, epilogue);
    }
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
