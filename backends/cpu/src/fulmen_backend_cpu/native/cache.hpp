// Keys and values: a ring for each slot of a window cache, pages of a full cache. Keys lie as panels of 16 tokens over the head's width, values in blocks of 32 tokens as
// panels of 16 elements over the tokens: both are then weights of a product, `scores = Q K` and `out = P V`.
//
// Legend: h head width, hp h rounded up to 16.
#pragma once

#include "matrix.hpp"

namespace fulmen {

constexpr int BLOCK = 32;  // tokens of a block of values; capacities are rounded up to it

// Where one kv head of one ring or page lies.
struct HeadCache {
    uint8_t *k, *v;
    float *k_scales, *v_scales;  // int8: one for each token
};

struct Cache {
    Format format = Format::F32;
    int window = 0;  // 0: full
    int capacity = 0, padded = 0, kv_heads = 0, width = 0;  // tokens of a ring or page, tokens, -, hp
    uint8_t *k = nullptr, *v = nullptr;
    float *k_scales = nullptr, *v_scales = nullptr;

    // Elements of a token, or of a dimension, that lie side by side. Int8 lies as bfloat16 does, to expand in order.
    int step() const { return format == Format::F32 ? 1 : 2; }
    size_t head_elements() const { return (size_t)padded * width; }
    size_t head_bytes() const { return head_elements() * element_bytes(format); }

    HeadCache head(int ring_or_page, int kv_head) const {
        const size_t i = (size_t)ring_or_page * kv_heads + kv_head;
        const bool scaled = format == Format::I8;
        return {k + i * head_bytes(), v + i * head_bytes(), scaled ? k_scales + i * padded : nullptr,
                scaled ? v_scales + i * padded : nullptr};
    }

    // Make ring or page `to` what `from` is.
    void copy(int from, int to) const {
        const size_t a = (size_t)from * kv_heads, b = (size_t)to * kv_heads, bytes = kv_heads * head_bytes();
        std::memcpy(k + b * head_bytes(), k + a * head_bytes(), bytes);
        std::memcpy(v + b * head_bytes(), v + a * head_bytes(), bytes);
        if (format != Format::I8) return;
        std::memcpy(k_scales + b * padded, k_scales + a * padded, sizeof(float) * kv_heads * padded);
        std::memcpy(v_scales + b * padded, v_scales + a * padded, sizeof(float) * kv_heads * padded);
    }

    // Write one token's key and value ([hp], zero beyond h) at place `index`.
    void put(const HeadCache& head, int index, const float* key, const float* value) const {
        float k_inverse = 1, v_inverse = 1;
        if (format == Format::I8) {
            k_inverse = scale_of(key, head.k_scales + index);
            v_inverse = scale_of(value, head.v_scales + index);
        }
        const int s = step();
        const size_t k_panel = (size_t)(index / LANES) * LANES * width;
        const size_t v_block = (size_t)(index / BLOCK) * BLOCK * width;
        const int lane = index % LANES, token = index % BLOCK;
        for (int d = 0; d < width; d++) {
            write(head.k, k_panel + ((size_t)(d / s) * LANES + lane) * s + d % s, key[d], k_inverse);
            write(head.v, v_block + (size_t)(d / LANES) * BLOCK * LANES + ((size_t)(token / s) * LANES + d % LANES) * s + token % s,
                  value[d], v_inverse);
        }
    }

    // Zero the block of values that holds `index`: a weight of zero times an earlier user's NaN would be NaN.
    void clear_values(const HeadCache& head, int index) const {
        const size_t bytes = (size_t)BLOCK * width * element_bytes(format);
        std::memset(head.v + index / BLOCK * bytes, 0, bytes);
        if (format == Format::I8) std::memset(head.v_scales + index / BLOCK * BLOCK, 0, BLOCK * sizeof(float));
    }

    // Expand `tokens` (a multiple of 32) int8 tokens from `index` (likewise) on into bfloat16 of the same layout.
    void expand(const HeadCache& head, int index, int tokens, uint16_t* keys, uint16_t* values) const {
        for (int t = 0; t < tokens; t += LANES) {
            const int8_t* from = (const int8_t*)head.k + (size_t)(index + t) * width;
            float pairs[2 * LANES];
            for (int lane = 0; lane < LANES; lane++) pairs[2 * lane] = pairs[2 * lane + 1] = head.k_scales[index + t + lane];
            const f32x16 low = load_f32(pairs), high = load_f32(pairs + LANES);
            for (int i = 0; i < width * LANES; i += 2 * LANES) {
                store(keys + (size_t)t * width + i, to_bf16(widened(from + i) * low));
                store(keys + (size_t)t * width + i + LANES, to_bf16(widened(from + i + LANES) * high));
            }
        }
        for (int t = 0; t < tokens; t += BLOCK) {
            const int8_t* from = (const int8_t*)head.v + (size_t)(index + t) * width;
            for (int i = 0; i < width * BLOCK; i += 2 * LANES) {
                const int token = i / (2 * LANES) % (BLOCK / 2) * 2;
                f32x16 scale{};
                for (int lane = 0; lane < LANES; lane++) scale[lane] = head.v_scales[index + t + token + lane % 2];
                store(values + (size_t)t * width + i, to_bf16(widened(from + i) * scale));
                store(values + (size_t)t * width + i + LANES, to_bf16(widened(from + i + LANES) * scale));
            }
        }
    }

  private:
    static f32x16 widened(const int8_t* from) { return __builtin_convertvector(load<i8x16>(from), f32x16); }

    float scale_of(const float* x, float* scale) const {
        float most = 0;
        for (int d = 0; d < width; d++) most = std::fmax(most, std::fabs(x[d]));
        *scale = most / 127.0f;
        return most > 0 ? 127.0f / most : 0;
    }

    void write(uint8_t* to, size_t at, float value, float inverse) const {
        if (format == Format::F32) ((float*)to)[at] = value;
        if (format == Format::BF16) ((uint16_t*)to)[at] = to_bf16(value);
        if (format == Format::I8) ((int8_t*)to)[at] = (int8_t)std::nearbyint(value * inverse);
    }
};

// Adjoining places of a cache that hold adjoining positions.
struct Segment {
    HeadCache head;
    int first, last;  // places [first, last)
    int position;     // of place `first`
};

}  // namespace fulmen
