// Heads between the order of projections and the order of batched products.
//
// Legend: B batch, T tokens, K kv heads, G query heads a kv head, h head width, Q queries (T and filler), n blocks of b queries,
// S keys of a block, which end with the block.
#pragma once

#include "rows.hpp"

namespace fulmen {

struct Heads {
    int64_t batch, tokens, kv_heads, group, width;
    int64_t stride;  // elements from token to token of [B, T, K*G, h]; heads are adjacent
};

template <class T>
inline void copy_or_clear(T* to, const T* from, int64_t count) {
    if (from)
        std::copy(from, from + count, to);
    else
        std::fill(to, to + count, T(0));
}

// [B, T, K*G, h] to [B, K, Q, G, h]; zeros behind T.
template <class T>
void pack_heads(const T* x, const Heads& s, int64_t queries, T* out, int threads) {
    const int64_t each = s.group * s.width;
    for_rows(s.batch * s.kv_heads * queries, threads, [&](int64_t r) {
        const int64_t t = r % queries, k = r / queries % s.kv_heads, b = r / queries / s.kv_heads;
        copy_or_clear<T>(out + r * each, t < s.tokens ? x + (b * s.tokens + t) * s.stride + k * each : nullptr, each);
    });
}

// The inverse, filler dropped.
template <class T>
void unpack_heads(const T* x, const Heads& s, int64_t queries, T* out, int threads) {
    const int64_t each = s.group * s.width;
    for_rows(s.batch * s.tokens * s.kv_heads, threads, [&](int64_t r) {
        const int64_t k = r % s.kv_heads, t = r / s.kv_heads % s.tokens, b = r / s.kv_heads / s.tokens;
        copy_or_clear<T>(out + r * each, x + ((b * s.kv_heads + k) * queries + t) * each, each);
    });
}

// [B, T, K, h] to [B, K, n, S, h]; zeros before the first and behind the last token.
template <class T>
void cut_windows(const T* x, const Heads& s, int64_t blocks, int64_t block, int64_t keys, T* out, int threads) {
    for_rows(s.batch * s.kv_heads * blocks, threads, [&](int64_t r) {
        const int64_t j = r % blocks, k = r / blocks % s.kv_heads, b = r / blocks / s.kv_heads, begin = (j + 1) * block - keys;
        for (int64_t i = 0; i < keys; i++) {
            const int64_t t = begin + i;
            const bool there = t >= 0 && t < s.tokens;
            copy_or_clear<T>(out + (r * keys + i) * s.width, there ? x + (b * s.tokens + t) * s.stride + k * s.width : nullptr, s.width);
        }
    });
}

// The inverse for gradients: [B, T, K, h], the sum of what all blocks say of a key.
template <class T>
void fold_windows(const T* grads, const Heads& s, int64_t blocks, int64_t block, int64_t keys, T* out, int threads) {
    for_rows(s.batch * s.tokens * s.kv_heads, threads, [&](int64_t r) {
        const int64_t k = r % s.kv_heads, t = r / s.kv_heads % s.tokens, b = r / s.kv_heads / s.tokens;
        const int64_t last = std::min(blocks - 1, (t - block + keys) / block);
        for (int64_t d = 0; d < s.width; d += LANES) {
            f32x16 total{};
            for (int64_t j = t / block; j <= last; j++) {
                const int64_t key = t - ((j + 1) * block - keys);
                total += get(grads + (((b * s.kv_heads + k) * blocks + j) * keys + key) * s.width + d);
            }
            put(out + r * s.width + d, total);
        }
    });
}

}  // namespace fulmen
