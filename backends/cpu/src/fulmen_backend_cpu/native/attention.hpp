// Attention of some query rows over segments of a cache, one pass with a running softmax (arXiv 2205.14135). Blocks
// that no row sees are never read, so that a window costs its width.
//
// Legend: R rows = tokens * G, G query heads of a kv head; a row's token is row / G.
#pragma once

#include <algorithm>
#include <vector>

#include "cache.hpp"
#include "product.hpp"

namespace fulmen {

constexpr int KEYS = 128;      // keys scored at once, aligned in the cache
constexpr int QUERY_ROWS = 48; // rows of a task, unless one token has more heads

inline Format attention_rows_format(Format cache) {
    return cache == Format::F32 || !BF16_PRODUCTS ? Format::F32 : Format::BF16;
}

struct Queries {
    Format format;
    const uint8_t* data;  // [rows][hp], scaled by 1/sqrt(h)
    int rows, heads;      // R, G
    int position;         // of the first row's token
};

// Memory of one thread, and the running result: out_Rh / total_R after all segments.
class Attention {
  public:
    Attention(int max_rows, int width, Format cache)
        : width_(width), cache_format_(cache), rows_format_(attention_rows_format(cache)), max_rows_(max_rows + 32) {
        scores_.resize((size_t)max_rows_ * KEYS);
        weights_.resize((size_t)max_rows_ * KEYS * element_bytes(rows_format_));
        out_.resize((size_t)max_rows_ * width);
        most_.resize(max_rows_);
        total_.resize(max_rows_);
        if (cache == Format::I8) {
            keys_.resize((size_t)KEYS * width);
            values_.resize((size_t)KEYS * width);
        }
    }

    void begin(int rows) {
        std::fill(out_.begin(), out_.begin() + (size_t)rows * width_, 0.0f);
        std::fill(most_.begin(), most_.begin() + rows, -INFINITY);
        std::fill(total_.begin(), total_.begin() + rows, 0.0f);
    }

    // `after`: where the next segment lies, to be fetched ahead; nothing if unknown.
    void attend(const Cache& cache, const Queries& q, const Segment& segment, const HeadCache& after) {
        const int tokens = (q.rows + q.heads - 1) / q.heads;
        const int shift = segment.first - segment.position;  // place = position + shift
        int first = segment.first, last = segment.last;
        if (cache.window) first = std::max(first, q.position - cache.window + 1 + shift);
        last = std::min(last, q.position + tokens + shift);
        for (int begin = first / BLOCK * BLOCK; begin < last;) {
            const int end = std::min(begin / KEYS * KEYS + KEYS, round_up(last, BLOCK));
            block(cache, q, segment, begin, end - begin, shift, end < last ? segment.head : after, end < last ? end : 0);
            begin = end;
        }
    }

    const float* out(int row) const { return out_.data() + (size_t)row * width_; }
    float most(int row) const { return most_[row]; }
    float total(int row) const { return total_[row]; }

  private:
    void block(const Cache& cache, const Queries& q, const Segment& segment, int begin, int keys, int shift, const HeadCache& next,
               int next_begin) {
        const uint8_t *k, *v;
        if (cache.format == Format::I8) {
            cache.expand(segment.head, begin, keys, keys_.data(), values_.data());
            k = (const uint8_t*)keys_.data();
            v = (const uint8_t*)values_.data();
        } else {
            k = segment.head.k + (size_t)begin * width_ * element_bytes(cache.format);
            v = segment.head.v + (size_t)begin * width_ * element_bytes(cache.format);
        }
        const int bytes = cache.format == Format::F32 ? 4 : 2;
        Operands score{};
        score.panels = k;
        score.panel_bytes = (size_t)width_ * LANES * bytes;
        score.blocks = 1;
        score.inputs = width_;
        score.rows = q.data;
        score.row_bytes = (size_t)width_ * element_bytes(rows_format_);
        score.out = scores_.data();
        score.stride = KEYS;
        const bool streams = q.rows <= MAX_ROWS && cache.format != Format::I8 && next.k;
        const size_t next_at = (size_t)next_begin * width_ * bytes;
        if (streams) score.ahead = next.k + next_at;
        product<false>(score, q.rows, keys / LANES);

        for (int r = 0; r < q.rows; r++) {
            const int seen_to = q.position + r / q.heads + 1 + shift;  // places [.., seen_to)
            const int seen_from = cache.window ? seen_to - cache.window : 0;
            const int from = std::max(segment.first, seen_from) - begin, to = std::min(segment.last, seen_to) - begin;
            soften(r, keys, std::max(from, 0), std::min(to, keys));
        }

        Operands mix{};
        mix.panels = v;
        mix.panel_bytes = (size_t)BLOCK * LANES * bytes;
        mix.block_bytes = (size_t)BLOCK * width_ * bytes;
        mix.blocks = keys / BLOCK;
        mix.inputs = BLOCK;
        mix.rows = weights_.data();
        mix.row_bytes = (size_t)KEYS * element_bytes(rows_format_);
        mix.out = out_.data();
        mix.stride = width_;
        if (streams) mix.ahead = next.v + next_at;
        product<true>(mix, q.rows, width_ / LANES);
    }

    // Turn a row of scores into weights under the running maximum; places outside [from, to) weigh nothing.
    void soften(int row, int keys, int from, int to) {
        float* scores = scores_.data() + (size_t)row * KEYS;
        if (from >= to) {
            for (int i = 0; i < keys; i += LANES) put_weights(row, i, f32x16{});
            return;
        }
        const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        f32x16 most_v = splat(-INFINITY);
        if (from > 0 || to < keys)
            for (int i = 0; i < keys; i += LANES) {
                const i32x16 seen = (lane + i >= from) & (lane + i < to);
                store(scores + i, seen ? load_f32(scores + i) : splat(-INFINITY));
            }
        for (int i = 0; i < keys; i += LANES) most_v = maximum(most_v, load_f32(scores + i));
        const float before = most_[row], most = std::max(before, largest(most_v));
        f32x16 total{};
        for (int i = 0; i < keys; i += LANES) {
            const f32x16 weight = exponential(load_f32(scores + i) - most);
            total += weight;
            put_weights(row, i, weight);
        }
        if (most != before) {
            const float fade = std::exp(before - most);
            total_[row] *= fade;
            float* out = out_.data() + (size_t)row * width_;
            for (int d = 0; d < width_; d += LANES) store(out + d, load_f32(out + d) * fade);
            most_[row] = most;
        }
        total_[row] += sum(total);
    }

    void put_weights(int row, int key, f32x16 weight) {
        if (rows_format_ == Format::F32)
            store((float*)weights_.data() + (size_t)row * KEYS + key, weight);
        else
            store((uint16_t*)weights_.data() + (size_t)row * KEYS + key, to_bf16(weight));
    }

    template <bool ADD>
    void product(Operands o, int rows, int panels) {
#if defined(FULMEN_AMX)
        if (use_amx && rows_format_ == Format::BF16 && panels % 2 == 0 && o.inputs % 32 == 0)
            return product_amx<ADD>(o, rows, panels);
#endif
        const int step = detail::rows_per_call(rows, MAX_ROWS);
        for (int p = 0; p < panels;) {
            const int width = panels - p >= WIDE ? WIDE : panels - p >= 2 && WIDE >= 2 ? 2 : 1;
            for (int r = 0; r < rows; r += step) {
                Operands part = o;
                part.panels = o.panels + p * o.panel_bytes;
                part.rows = o.rows + r * o.row_bytes;
                part.out = o.out + (size_t)r * o.stride + p * LANES;
                if (o.ahead) {  // the next keys or values adjoin these: a call's share of them
                    part.ahead = o.ahead + (size_t)p * LANES * o.inputs * o.blocks * 2;
                    part.ahead_lines = width;
                }
                const int count = std::min(step, rows - r);
                if (width == WIDE)
                    call<WIDE, ADD>(count, part);
                else if (width == 2)
                    call<2, ADD>(count, part);
                else
                    call<1, ADD>(count, part);
            }
            p += width;
        }
    }

    template <int P, bool ADD>
    void call(int rows, const Operands& o) {
        if (cache_format_ == Format::F32)
            multiply_rows<F32Weights, P, ADD>(rows, o);
        else if (rows_format_ == Format::BF16)
            multiply_rows<Bf16Weights, P, ADD>(rows, o);
        else
            multiply_rows<Bf16WeightsF32Rows, P, ADD>(rows, o);
    }

#if defined(FULMEN_AMX)
    template <bool ADD>
    void product_amx(const Operands& o, int rows, int panels) {
        constexpr int stride = 2 * LANES;
        alignas(64) float block[2 * TILE_ROWS * stride];
        configure_tiles(TileShapes(Format::BF16, std::min(rows, TILE_ROWS)));
        for (int p = 0; p < panels; p += 2)
            for (int r = 0; r < rows; r += 2 * TILE_ROWS) {
                const int count = std::min(2 * TILE_ROWS, rows - r);
                const Bf16Tiles tiles{o.panels + p * o.panel_bytes, o.panel_bytes, o.block_bytes, o.blocks, o.inputs,
                                      o.rows + r * o.row_bytes, o.row_bytes};
                if (count > TILE_ROWS)
                    tiles.multiply<2, true>(block, stride);
                else
                    tiles.multiply<2, false>(block, stride);
                for (int i = 0; i < count; i++)
                    for (int half = 0; half < stride; half += LANES) {
                        float* to = o.out + (size_t)(r + i) * o.stride + p * LANES + half;
                        const f32x16 value = load_f32(block + i * stride + half);
                        store(to, ADD ? load_f32(to) + value : value);
                    }
            }
        release_tiles();
    }
#endif

    int width_;
    Format cache_format_, rows_format_;
    int max_rows_;
    std::vector<float> scores_, out_, most_, total_;
    std::vector<uint8_t> weights_;
    std::vector<uint16_t> keys_, values_;
};

}  // namespace fulmen
