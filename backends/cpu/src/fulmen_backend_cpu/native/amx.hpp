// Large bfloat16 products on Intel's matrix units (AMX). Weights already lie as B tiles; activations are A tiles as
// they are. Used only where `amx_works()` found the unit's results right; written for processors the authors had not
// all at hand, so that check is part of it.
//
// With FULMEN_EMULATE_AMX the tile instructions are plain loops: slow, for testing the addressing anywhere.
#pragma once

#include "matrix.hpp"

#if defined(FULMEN_EMULATE_AMX) || (defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__linux__))
#define FULMEN_AMX 1
#endif

#if defined(FULMEN_AMX) && !defined(FULMEN_EMULATE_AMX)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fulmen {

constexpr int TILE_ROWS = 16;

#if defined(FULMEN_EMULATE_AMX)

struct EmulatedTile {
    uint8_t bytes[TILE_ROWS][64];
};
inline thread_local EmulatedTile emulated_tiles[8];
inline void configure_tiles() {}
inline void release_tiles() {}
inline bool amx_permitted() { return true; }
#define FULMEN_TILE_ZERO(t) std::memset(&emulated_tiles[t], 0, sizeof(EmulatedTile))
#define FULMEN_TILE_LOAD(t, from, stride) \
    for (int i_ = 0; i_ < TILE_ROWS; i_++) std::memcpy(emulated_tiles[t].bytes[i_], (const uint8_t*)(from) + i_ * (stride), 64)
#define FULMEN_TILE_STORE(t, to, stride) \
    for (int i_ = 0; i_ < TILE_ROWS; i_++) std::memcpy((uint8_t*)(to) + i_ * (stride), emulated_tiles[t].bytes[i_], 64)
inline void emulated_product(int c, int a, int b) {
    for (int m = 0; m < TILE_ROWS; m++)
        for (int n = 0; n < LANES; n++) {
            float total = ((float*)emulated_tiles[c].bytes[m])[n];
            for (int k = 0; k < 32; k++)
                total += from_bf16(((uint16_t*)emulated_tiles[a].bytes[m])[k]) *
                         from_bf16(((uint16_t*)emulated_tiles[b].bytes[k / 2])[2 * n + k % 2]);
            ((float*)emulated_tiles[c].bytes[m])[n] = total;
        }
}
#define FULMEN_TILE_PRODUCT(c, a, b) emulated_product(c, a, b)

#elif defined(FULMEN_AMX)

inline void configure_tiles() {
    alignas(64) uint8_t config[64] = {};
    config[0] = 1;  // palette
    for (int tile = 0; tile < 8; tile++) {
        config[16 + 2 * tile] = 64;  // bytes of a row
        config[48 + tile] = TILE_ROWS;
    }
    // Not _tile_loadconfig: gcc 12 takes its operand for one pointer wide and drops the stores that fill the rest.
    asm volatile("ldtilecfg %0" ::"m"(*(const char(*)[64])config));
}
inline void release_tiles() { _tile_release(); }
inline bool amx_permitted() {
    constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#define FULMEN_TILE_ZERO(t) _tile_zero(t)
#define FULMEN_TILE_LOAD(t, from, stride) _tile_loadd(t, from, stride)
#define FULMEN_TILE_STORE(t, to, stride) _tile_stored(t, to, stride)
#define FULMEN_TILE_PRODUCT(c, a, b) _tile_dpbf16ps(c, a, b)

#endif

#if defined(FULMEN_AMX)

// [32 rows][32 outputs] = 32 rows of `row_bytes` times two panels, over `blocks` blocks of `inputs` (a multiple of 32) that
// lie `block_bytes` apart in the panels. Rows beyond the caller's are read and computed too: buffers of rows have 32 to
// spare. Tiles must be configured.
inline void amx_block(const uint8_t* panels, size_t panel_bytes, size_t block_bytes, int blocks, const uint8_t* all_rows,
                      size_t row_bytes, int inputs, bool second, float* out, int stride) {
    FULMEN_TILE_ZERO(0);
    FULMEN_TILE_ZERO(1);
    FULMEN_TILE_ZERO(2);
    FULMEN_TILE_ZERO(3);
    for (int i = 0; i < blocks * (inputs / 32); i++) {
        const int k = i % (inputs / 32) * 32;
        const uint8_t* panel = panels + i / (inputs / 32) * block_bytes;
        const uint8_t* rows = all_rows + (size_t)(i / (inputs / 32)) * inputs * 2;
        FULMEN_TILE_LOAD(6, panel + (size_t)k * 32, 64);
        FULMEN_TILE_LOAD(7, panel + panel_bytes + (size_t)k * 32, 64);
        FULMEN_TILE_LOAD(4, rows + (size_t)k * 2, row_bytes);
        FULMEN_TILE_PRODUCT(0, 4, 6);
        FULMEN_TILE_PRODUCT(1, 4, 7);
        if (second) {
            FULMEN_TILE_LOAD(5, rows + TILE_ROWS * row_bytes + (size_t)k * 2, row_bytes);
            FULMEN_TILE_PRODUCT(2, 5, 6);
            FULMEN_TILE_PRODUCT(3, 5, 7);
        }
    }
    const int stride_bytes = stride * 4;
    FULMEN_TILE_STORE(0, out, stride_bytes);
    FULMEN_TILE_STORE(1, out + LANES, stride_bytes);
    if (second) {
        FULMEN_TILE_STORE(2, out + TILE_ROWS * stride, stride_bytes);
        FULMEN_TILE_STORE(3, out + TILE_ROWS * stride + LANES, stride_bytes);
    }
}

// Ask the system for the tiles and compare a small product with plain arithmetic.
inline bool amx_works() {
    if (!amx_permitted()) return false;
    constexpr int inputs = 64;
    alignas(64) static uint16_t panels[2 * inputs * LANES], rows[32 * inputs];
    alignas(64) static float out[32 * 32];
    uint32_t state = 1;
    auto next = [&] { return to_bf16((float)((int)((state = state * 1664525u + 1013904223u) >> 24) - 128) / 64.0f); };
    for (auto& x : panels) x = next();
    for (auto& x : rows) x = next();
    configure_tiles();
    amx_block((const uint8_t*)panels, inputs * LANES * 2, 0, 1, (const uint8_t*)rows, inputs * 2, inputs, true, out, 32);
    release_tiles();
    for (int r = 0; r < 32; r++)
        for (int n = 0; n < 32; n++) {
            double exact = 0;
            for (int k = 0; k < inputs; k++)
                exact += (double)from_bf16(rows[r * inputs + k]) *
                         from_bf16(panels[(n / LANES) * inputs * LANES + (k / 2 * LANES + n % LANES) * 2 + k % 2]);
            if (!(std::fabs(out[r * 32 + n] - exact) < 1e-2)) return false;
        }
    return true;
}

#else

inline bool amx_works() { return false; }

#endif

}  // namespace fulmen
