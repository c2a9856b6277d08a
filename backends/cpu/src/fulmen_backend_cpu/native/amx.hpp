// Products on Intel's matrix units (AMX). Weights already lie as B tiles; activations are A tiles as they are. An element is
// summed over the inputs in one order however many rows there are, so that a row's result does not depend on its
// neighbours; in int8 it is that of the vector kernels, bit for bit. Used only where `amx_works()` found the results right.
//
// With FULMEN_EMULATE_AMX the tile instructions are plain loops: slow, for testing the addressing anywhere.
#pragma once

#include "matrix.hpp"

#if defined(FULMEN_EMULATE_AMX) || (defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AMX_INT8__) && defined(__linux__))
#define FULMEN_AMX 1
#endif

#if defined(FULMEN_AMX) && !defined(FULMEN_EMULATE_AMX)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fulmen {

constexpr int TILE_ROWS = 16;

#if defined(FULMEN_AMX)

// Tiles 0 to 3 hold sums, 4 activations, the others weights; 5 also holds activations, of the second 16 rows.
struct TileShapes {
    alignas(64) uint8_t bytes[64] = {};

    TileShapes(Format format, int rows) {
        bytes[0] = 1;  // palette
        for (int tile = 0; tile < 5; tile++) shape(tile, rows, 64);
        for (int tile = 5; tile < 8; tile++) shape(tile, TILE_ROWS, 64);
        if (format == Format::I8) {  // a group of inputs has half of the bytes that a row may have
            shape(4, rows, GROUP);
            for (int tile = 5; tile < 8; tile++) shape(tile, GROUP / 4, 64);
        }
    }
    void shape(int tile, int rows, int row_bytes) {
        bytes[16 + 2 * tile] = (uint8_t)row_bytes;
        bytes[48 + tile] = (uint8_t)rows;
    }
};

#if defined(FULMEN_EMULATE_AMX)

struct EmulatedTile {
    int rows, row_bytes;
    uint8_t bytes[TILE_ROWS][64];
};
inline thread_local EmulatedTile emulated_tiles[8];
inline void configure_tiles(const TileShapes& shapes) {
    for (int tile = 0; tile < 8; tile++) emulated_tiles[tile] = {shapes.bytes[48 + tile], shapes.bytes[16 + 2 * tile], {}};
}
inline void release_tiles() {}
inline bool amx_permitted() { return true; }
inline void emulated_load(EmulatedTile& t, const void* from, size_t stride) {
    for (int i = 0; i < t.rows; i++) std::memcpy(t.bytes[i], (const uint8_t*)from + i * stride, t.row_bytes);
}
inline void emulated_store(const EmulatedTile& t, void* to, size_t stride) {
    for (int i = 0; i < t.rows; i++) std::memcpy((uint8_t*)to + i * stride, t.bytes[i], t.row_bytes);
}
inline void emulated_bf16(EmulatedTile& c, const EmulatedTile& a, const EmulatedTile& b) {
    for (int m = 0; m < c.rows; m++)
        for (int n = 0; n < LANES; n++) {
            float halves[2] = {};
            for (int k = 0; k < a.row_bytes / 2; k++) {
                const uint16_t left = ((uint16_t*)a.bytes[m])[k], right = ((uint16_t*)b.bytes[k / 2])[2 * n + k % 2];
                halves[k % 2] = std::fma(from_bf16(left), from_bf16(right), halves[k % 2]);
            }
            ((float*)c.bytes[m])[n] += halves[0] + halves[1];
        }
}
inline void emulated_int8(EmulatedTile& c, const EmulatedTile& a, const EmulatedTile& b) {
    for (int m = 0; m < c.rows; m++)
        for (int n = 0; n < LANES; n++)
            for (int k = 0; k < a.row_bytes; k++)
                ((int32_t*)c.bytes[m])[n] += (int32_t)(int8_t)a.bytes[m][k] * b.bytes[k / 4][4 * n + k % 4];
}
#define FULMEN_TILE_ZERO(t) std::memset(emulated_tiles[t].bytes, 0, sizeof emulated_tiles[t].bytes)
#define FULMEN_TILE_LOAD(t, from, stride) emulated_load(emulated_tiles[t], from, stride)
#define FULMEN_TILE_STORE(t, to, stride) emulated_store(emulated_tiles[t], to, stride)
#define FULMEN_TILE_BF16(c, a, b) emulated_bf16(emulated_tiles[c], emulated_tiles[a], emulated_tiles[b])
#define FULMEN_TILE_INT8(c, a, b) emulated_int8(emulated_tiles[c], emulated_tiles[a], emulated_tiles[b])

#else

// Not _tile_loadconfig: gcc 12 takes its operand for one pointer wide and drops the stores that fill the rest.
inline void configure_tiles(const TileShapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])shapes.bytes)); }
inline void release_tiles() { _tile_release(); }
inline bool amx_permitted() {
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#define FULMEN_TILE_ZERO(t) _tile_zero(t)
#define FULMEN_TILE_LOAD(t, from, stride) _tile_loadd(t, from, stride)
#define FULMEN_TILE_STORE(t, to, stride) _tile_stored(t, to, stride)
#define FULMEN_TILE_BF16(c, a, b) _tile_dpbf16ps(c, a, b)
#define FULMEN_TILE_INT8(c, a, b) _tile_dpbsud(c, a, b)

#endif

// Some bfloat16 panels, and the rows that they are multiplied with. Inputs lie in `blocks` blocks of `inputs` (a multiple of
// 32) that are `block_bytes` apart in the panels.
struct Bf16Tiles {
    const uint8_t* panels;
    size_t panel_bytes, block_bytes;
    int blocks, inputs;
    const uint8_t* rows;
    size_t row_bytes;

    // out [rows][PANELS * 16], of at most 16 rows, or of 32 where TWICE.
    template <int PANELS, bool TWICE>
    void multiply(float* out, int stride) const {
        static_assert(PANELS == 2 || (PANELS == 4 && !TWICE), "there are four tiles of sums");
        FULMEN_TILE_ZERO(0);
        FULMEN_TILE_ZERO(1);
        FULMEN_TILE_ZERO(2);
        FULMEN_TILE_ZERO(3);
        const uint8_t* row = rows;
        for (int block = 0; block < blocks; block++) {
            const uint8_t* weights = panels + block * block_bytes;
            for (int k = 0; k < inputs; k += 32, weights += 32 * 32, row += 32 * 2) {
                FULMEN_TILE_LOAD(4, row, row_bytes);
                FULMEN_TILE_LOAD(6, weights, 64);
                FULMEN_TILE_BF16(0, 4, 6);
                FULMEN_TILE_LOAD(7, weights + panel_bytes, 64);
                FULMEN_TILE_BF16(1, 4, 7);
                if (TWICE) {
                    FULMEN_TILE_LOAD(5, row + TILE_ROWS * row_bytes, row_bytes);
                    FULMEN_TILE_BF16(2, 5, 6);
                    FULMEN_TILE_BF16(3, 5, 7);
                } else if (PANELS == 4) {
                    FULMEN_TILE_LOAD(5, weights + 2 * panel_bytes, 64);
                    FULMEN_TILE_BF16(2, 4, 5);
                    FULMEN_TILE_LOAD(6, weights + 3 * panel_bytes, 64);
                    FULMEN_TILE_BF16(3, 4, 6);
                }
            }
        }
        const int next = TWICE ? TILE_ROWS * stride : 2 * LANES;  // where the other two tiles go
        FULMEN_TILE_STORE(0, out, stride * 4);
        FULMEN_TILE_STORE(1, out + LANES, stride * 4);
        if (PANELS == 4 || TWICE) {
            FULMEN_TILE_STORE(2, out + next, stride * 4);
            FULMEN_TILE_STORE(3, out + next + LANES, stride * 4);
        }
    }
};

// out [rows][64] = at most 16 rows times four int8 panels. Each group of inputs is summed whole, then scaled and added, as
// the vector kernels do.
struct Int8Tiles {
    const uint8_t* panels;
    size_t panel_bytes;
    const float* panel_scales;
    const uint8_t* rows;
    size_t row_bytes;
    const float* row_scales;     // [rows][groups]
    const int32_t* row_offsets;  // the same
    int groups;

    void multiply(int count, float* out) const {
        alignas(64) int32_t whole[2][4][TILE_ROWS * LANES];  // of two groups in turn: one is scaled while the other is summed
        for (int g = 0; g < groups; g++) {
            auto& tiles = whole[g % 2];
            const uint8_t* weights = panels + (size_t)g * GROUP * LANES;
            FULMEN_TILE_ZERO(0);
            FULMEN_TILE_ZERO(1);
            FULMEN_TILE_ZERO(2);
            FULMEN_TILE_ZERO(3);
            FULMEN_TILE_LOAD(4, rows + (size_t)g * GROUP, row_bytes);
            FULMEN_TILE_LOAD(5, weights, 64);
            FULMEN_TILE_INT8(0, 4, 5);
            FULMEN_TILE_LOAD(6, weights + panel_bytes, 64);
            FULMEN_TILE_INT8(1, 4, 6);
            FULMEN_TILE_LOAD(7, weights + 2 * panel_bytes, 64);
            FULMEN_TILE_INT8(2, 4, 7);
            FULMEN_TILE_LOAD(5, weights + 3 * panel_bytes, 64);
            FULMEN_TILE_INT8(3, 4, 5);
            FULMEN_TILE_STORE(0, tiles[0], 64);
            FULMEN_TILE_STORE(1, tiles[1], 64);
            FULMEN_TILE_STORE(2, tiles[2], 64);
            FULMEN_TILE_STORE(3, tiles[3], 64);
            add_scaled(tiles, g, count, out);
        }
    }

  private:
    void add_scaled(const int32_t (&tiles)[4][TILE_ROWS * LANES], int g, int count, float* out) const {
        f32x16 scales[4];
#pragma GCC unroll 4
        for (int p = 0; p < 4; p++) scales[p] = load_f32(panel_scales + p * LANES);
        for (int r = 0; r < count; r++, out += 4 * LANES) {
            const float row_scale = row_scales[(size_t)r * groups + g];
            const int32_t offset = row_offsets[(size_t)r * groups + g];
#pragma GCC unroll 4
            for (int p = 0; p < 4; p++) {
                const f32x16 sums = __builtin_convertvector(load<i32x16>(tiles[p] + r * LANES) + offset, f32x16);
                const f32x16 before = g ? load_f32(out + p * LANES) : f32x16{};
                store(out + p * LANES, multiply_add(sums, scales[p] * row_scale, before));
            }
        }
    }
};

// Ask the system for the tiles, and compare small products with plain arithmetic in the same order: to the bit, as single
// rows are computed without them.
inline bool amx_works() {
    if (!amx_permitted()) return false;
    constexpr int inputs = 64, rows = 3;
    alignas(64) static uint16_t panels[4 * inputs * LANES], left[rows * inputs];
    alignas(64) static uint8_t bytes[4 * inputs * LANES];
    alignas(64) static int8_t left_bytes[rows * inputs];
    alignas(64) static float out[rows * 4 * LANES];
    uint32_t state = 1;
    auto next = [&] { return (int)((state = state * 1664525u + 1013904223u) >> 24); };
    auto number = [&] { return to_bf16(std::ldexp((float)(next() - 128), next() % 16)); };  // sums of such must be rounded
    for (auto& x : panels) x = number();
    for (auto& x : left) x = number();
    for (auto& x : bytes) x = (uint8_t)next();
    for (auto& x : left_bytes) x = (int8_t)(next() - 128);
    auto right = [&](auto&& sum) {
        for (int r = 0; r < rows; r++)
            for (int n = 0; n < 4 * LANES; n++)
                if (out[r * 4 * LANES + n] != sum(r, n / LANES * inputs * LANES, n % LANES)) return false;
        return true;
    };
    configure_tiles(TileShapes(Format::BF16, rows));
    Bf16Tiles{(const uint8_t*)panels, inputs * LANES * 2, 0, 1, inputs, (const uint8_t*)left, inputs * 2}.multiply<4, false>(out, 4 * LANES);
    release_tiles();
    const bool bf16_right = right([&](int r, int panel, int lane) {
        float total = 0;
        for (int first = 0; first < inputs; first += 32) {
            float halves[2] = {};
            for (int k = first; k < first + 32; k++) {
                const uint16_t weight = panels[panel + (k / 2 * LANES + lane) * 2 + k % 2];
                halves[k % 2] = std::fma(from_bf16(left[r * inputs + k]), from_bf16(weight), halves[k % 2]);
            }
            total += halves[0] + halves[1];
        }
        return total;
    });
    float ones[4 * LANES];
    for (float& one : ones) one = 1;
    const int32_t none[rows * inputs / GROUP] = {};
    configure_tiles(TileShapes(Format::I8, rows));
    Int8Tiles{bytes, inputs * LANES, ones, (const uint8_t*)left_bytes, inputs, ones, none, inputs / GROUP}.multiply(rows, out);
    release_tiles();
    return bf16_right && right([&](int r, int panel, int lane) {
        int total = 0;
        for (int k = 0; k < inputs; k++) total += left_bytes[r * inputs + k] * bytes[panel + (k / 4 * LANES + lane) * 4 + k % 4];
        return (float)total;
    });
}

#else

inline bool amx_works() { return false; }

#endif

}  // namespace fulmen
