// What both passes of attention stand on: queries in strips of 16, and the keys and values of a kv head in panels.
//
// A strip's rows are its queries' heads that read one kv head, query after query; it sees whole panels of 16 keys, from one
// that depends on window and documents to its own. Strips are so short that few of the keys at the edges are in vain.
//
// Legend: B batch, T tokens, K kv heads, G query heads a kv head, h head width, N strips = panels of keys, R = 16 * G rows of
// a strip. Queries and keys behind the last token are zero.
#pragma once

#include "panels.hpp"

#include <memory>

namespace fulmen {

struct AttentionSizes {
    int64_t batch, tokens, kv_heads, group, width;
    int64_t strips() const { return (tokens + LANES - 1) / LANES; }
    int64_t rows() const { return LANES * group; }
    int64_t items() const { return batch * kv_heads; }
    float scale() const { return 1.0f / std::sqrt((float)width); }
};

// A tensor [B, T, heads, h]: heads are adjacent, `stride` elements from token to token.
struct Tokens {
    const uint16_t* at;
    int64_t stride;
};

// The first key that each query sees, [B or 1][T]; the last is itself.
struct Visible {
    const int32_t* first;
    int64_t stride;  // T, or 0 for one row of them
    const int32_t* of(int64_t batch) const { return first + batch * stride; }
};

// Memory that nobody has written yet.
template <class T>
std::unique_ptr<T[]> unwritten(int64_t count) {
    return std::unique_ptr<T[]>(new T[count]);
}

// 2^x for x up to 127, to two units in the last place (Cephes' exp2f); 0 far below.
inline f32x16 power_of_two(f32x16 x) {
#if defined(__AVX512F__)
    const __m512 n = _mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const f32x16 r = x - (f32x16)n;
    f32x16 p = splat(1.535336188319500e-4f);
    p = p * r + 1.339887440266574e-3f;
    p = p * r + 9.618437357674640e-3f;
    p = p * r + 5.550332471162809e-2f;
    p = p * r + 2.402264791363012e-1f;
    p = p * r + 6.931472028550421e-1f;
    p = p * r + 1.0f;
    return (f32x16)_mm512_scalef_ps((__m512)p, n);
#else
    return exponential(x * 0.69314718055994531f);
#endif
}

constexpr float LOG2_E = 1.44269504088896341f;
constexpr float UNSEEN = -1e30f;  // a score whose weight is 0
constexpr float LOWEST = -1e20f;  // below every score: the maximum of a row that has seen no key yet

// Which of 16 keys from `key` on the query sees.
inline i32x16 seen(int64_t first, int64_t query, int64_t key) {
    const i32x16 keys = i32x16{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + (int32_t)key;
    return (keys >= (int32_t)first) & (keys <= (int32_t)query);
}

// For each strip the first panel of keys that it or a later one sees, [B or 1][N], and the first that all its queries see whole.
struct Reach {
    std::vector<int32_t> from, whole;
    int64_t strips;

    Reach(const Visible& visible, const AttentionSizes& s) : strips(s.strips()) {
        const int64_t batches = visible.stride ? s.batch : 1;
        from.resize(batches * strips);
        whole.resize(batches * strips);
        for (int64_t b = 0; b < batches; b++) {
            const int32_t* first = visible.of(b);
            int32_t least = INT32_MAX;
            for (int64_t j = strips - 1; j >= 0; j--) {
                int32_t most = 0;
                for (int64_t t = j * LANES; t < std::min((j + 1) * LANES, s.tokens); t++) {
                    least = std::min(least, first[t]);
                    most = std::max(most, first[t]);
                }
                from[b * strips + j] = least / LANES;
                whole[b * strips + j] = (most + LANES - 1) / LANES;
            }
        }
    }
    const int32_t* row(const std::vector<int32_t>& of, int64_t batch) const {
        return of.data() + ((int64_t)of.size() > strips ? batch * strips : 0);
    }
    const int32_t* froms(int64_t batch) const { return row(from, batch); }
    const int32_t* wholes(int64_t batch) const { return row(whole, batch); }
};

// Rows of a strip, [16][G][h]; zeros behind the last token.
inline void gather_strip(const Tokens& x, const AttentionSizes& s, int64_t batch, int64_t kv_head, int64_t strip, int64_t group,
                         uint16_t* out) {
    const int64_t each = group * s.width;
    for (int64_t i = 0; i < LANES; i++, out += each) {
        const int64_t t = strip * LANES + i;
        const uint16_t* from = x.at + (batch * s.tokens + t) * x.stride + kv_head * each;
        if (t < s.tokens)
            std::copy(from, from + each, out);
        else
            std::fill(out, out + each, uint16_t(0));
    }
}

// Keys or values of all kv heads in panels that hold them as columns (to sum over h), as rows (to sum over keys), or both.
class KeyPanels {
  public:
    KeyPanels(const AttentionSizes& s, bool columns, bool rows)
        : width(s.width), all(s.strips() * LANES * s.width),
          row_panel(s.strips() * LANES * LANES), columns(columns ? unwritten<uint16_t>(s.items() * all) : nullptr),
          rows(rows ? unwritten<uint16_t>(s.items() * all) : nullptr) {}

    // `memory` holds 16 * h elements.
    void pack(const Tokens& x, const AttentionSizes& s, int64_t item, int64_t panel, uint16_t* memory) {
        gather_strip(x, s, item / s.kv_heads, item % s.kv_heads, panel, 1, memory);
        if (columns) panel_of_columns(memory, width, width / 2, columns.get() + item * all + panel * LANES * width);
        if (rows) panels_of_rows(memory, width, LANES / 2, (int)width, rows.get() + item * all + panel * LANES * LANES, row_panel);
    }

    // left [rows, h] times all keys of `panels` panels: [rows, panels * 16].
    void by_key(const Left& left, int64_t count, int64_t item, int64_t panel, int64_t panels, float* out, int64_t stride) const {
        multiply(left, (int)count, columns.get() + item * all + panel * LANES * width, (int)panels, width / 2, LANES * width, out,
                 stride);
    }

    // left [rows, panels * 16] times what lies in `panels` panels, or plus that: [rows, h].
    void by_width(const Left& left, int64_t count, int64_t item, int64_t panel, int64_t panels, float* out, bool add) const {
        multiply(left, (int)count, rows.get() + item * all + panel * LANES * LANES, (int)width / LANES, panels * LANES / 2, row_panel, out,
                 width, add);
    }

  private:
    int64_t width, all, row_panel;
    std::unique_ptr<uint16_t[]> columns, rows;
};

inline void pack_keys_and_values(KeyPanels& keys, KeyPanels& values, const Tokens& k, const Tokens& v, const AttentionSizes& s,
                                 int threads) {
#pragma omp parallel num_threads(threads)
    {
        const auto memory = unwritten<uint16_t>(LANES * s.width);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < s.items() * s.strips(); i++) {
            keys.pack(k, s, i / s.strips(), i % s.strips(), memory.get());
            values.pack(v, s, i / s.strips(), i % s.strips(), memory.get());
        }
    }
}

}  // namespace fulmen
