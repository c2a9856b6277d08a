// Matrices as the kernels read them. A weight of N outputs and K inputs lies in panels of 16 outputs: for each step of
// the inputs the 16 outputs' elements lie side by side, a float, a pair of bfloat16 or a quad of int8 for each output.
// That is what one FMA, VDPBF16PS or VPDPBUSD consumes, and what AMX calls the B tile: one layout for skinny products,
// large ones and matrix units. Keys and values are kept in it too.
#pragma once

#include <cstdint>

#include "vectors.hpp"

namespace fulmen {

enum class Format : int32_t { F32 = 0, BF16 = 1, I8 = 2 };

constexpr int INPUT_MULTIPLE = 32;  // inputs are padded to this: an AMX tile's, and a group of int8
constexpr int PANELS_MULTIPLE = 4;  // panels are padded to this: what one kernel call computes

inline int element_bytes(Format format) { return format == Format::F32 ? 4 : format == Format::BF16 ? 2 : 1; }

// Elements of one output that lie side by side.
inline int step_of(Format format) { return format == Format::F32 ? 1 : format == Format::BF16 ? 2 : 4; }

// Int8 activations share a scale in groups of this many inputs. Larger groups are faster and cost too much: with 96 to 192
// inputs a group the perplexity of a 135 M model rises by 0.6 to 1 %, with 32 by 0.3 %.
constexpr int GROUP = 32;

// A packed weight. Int8 holds q + 128 in 0..255, with one scale for each output.
struct Matrix {
    Format format = Format::F32;
    int outputs = 0, inputs = 0;
    int panels = 0, padded_inputs = 0;
    uint8_t* data = nullptr;
    float* scales = nullptr;  // [panels * 16], int8 only

    size_t panel_bytes() const { return (size_t)padded_inputs * LANES * element_bytes(format); }
    size_t bytes() const { return panel_bytes() * panels; }
    const uint8_t* panel(int index) const { return data + panel_bytes() * index; }

    static Matrix shaped(Format format, int outputs, int inputs) {
        Matrix m;
        m.format = format;
        m.outputs = outputs;
        m.inputs = inputs;
        m.panels = round_up((outputs + LANES - 1) / LANES, PANELS_MULTIPLE);
        m.padded_inputs = round_up(inputs, INPUT_MULTIPLE);
        return m;
    }
};

// A source weight: element (output, input) lies at `data[output * output_stride + input * input_stride]`, in elements.
struct Source {
    const void* data;
    Format format;  // F32 or BF16
    int64_t output_stride, input_stride;

    float at(int64_t output, int64_t input) const {
        const int64_t i = output * output_stride + input * input_stride;
        return format == Format::F32 ? ((const float*)data)[i] : from_bf16(((const uint16_t*)data)[i]);
    }
};

// Pack one panel of `m`; `rows[p * 16 + lane]` is the source's output for each lane, -1 for filler.
inline void pack_panel(Matrix& m, int panel, const Source& source, const int32_t* rows) {
    const int step = step_of(m.format);
    uint8_t* out = m.data + m.panel_bytes() * panel;
    std::memset(out, m.format == Format::I8 ? 128 : 0, m.panel_bytes());
    for (int lane = 0; lane < LANES; lane++) {
        const int row = rows[panel * LANES + lane];
        float scale = 0, inverse = 0;
        if (m.format == Format::I8) {
            float most = 0;
            for (int k = 0; row >= 0 && k < m.inputs; k++) most = std::fmax(most, std::fabs(source.at(row, k)));
            scale = most / 127.0f;
            inverse = most > 0 ? 127.0f / most : 0;
            m.scales[panel * LANES + lane] = scale;
        }
        for (int k = 0; k < (row >= 0 ? m.inputs : 0); k++) {
            const float value = source.at(row, k);
            const size_t at = ((size_t)(k / step) * LANES + lane) * step + k % step;
            if (m.format == Format::F32) ((float*)out)[at] = value;
            if (m.format == Format::BF16) ((uint16_t*)out)[at] = to_bf16(value);
            if (m.format == Format::I8) out[at] = (uint8_t)((int)std::nearbyint(value * inverse) + 128);
        }
    }
}

// Read one output of a packed weight back, as floats: a tied embedding.
inline void unpack_row(const Matrix& m, int output, float* to) {
    const int step = step_of(m.format), lane = output % LANES;
    const uint8_t* panel = m.panel(output / LANES);
    const float scale = m.format == Format::I8 ? m.scales[output] : 1.0f;
    for (int k = 0; k < m.inputs; k++) {
        const size_t at = ((size_t)(k / step) * LANES + lane) * step + k % step;
        if (m.format == Format::F32) to[k] = ((const float*)panel)[at];
        if (m.format == Format::BF16) to[k] = from_bf16(((const uint16_t*)panel)[at]);
        if (m.format == Format::I8) to[k] = ((int)panel[at] - 128) * scale;
    }
}

// Rows of activations, [rows][padded inputs], in the format that the kernels of a weight's format take. Int8 rows
// hold q in -127..127 with a scale for each group, and -128 * sum(q), which undoes the weights' offset of 128.
struct Rows {
    Format format = Format::F32;
    int inputs = 0, padded_inputs = 0;
    uint8_t* data = nullptr;
    float* scales = nullptr;
    int32_t* offsets = nullptr;

    int groups() const { return padded_inputs / GROUP; }
    size_t row_bytes() const { return (size_t)padded_inputs * element_bytes(format); }
    uint8_t* row(int index) const { return data + row_bytes() * index; }

    void copy_row(int to, const Rows& from, int index) const {
        std::memcpy(row(to), from.row(index), row_bytes());
        if (format != Format::I8) return;
        std::memcpy(scales + (size_t)to * groups(), from.scales + (size_t)index * groups(), sizeof(float) * groups());
        std::memcpy(offsets + (size_t)to * groups(), from.offsets + (size_t)index * groups(), sizeof(int32_t) * groups());
    }

    // Convert `x`, of `padded_inputs` floats with zeros at the end, into row `index`.
    void put(int index, const float* x) const {
        if (format == Format::F32) {
            std::memcpy(row(index), x, row_bytes());
        } else if (format == Format::BF16) {
            uint16_t* to = (uint16_t*)row(index);
            for (int k = 0; k < padded_inputs; k += LANES) store(to + k, to_bf16(load_f32(x + k)));
        } else {
            int8_t* to = (int8_t*)row(index);
            for (int g = 0; g < groups(); g++) put_group(to + g * GROUP, x + g * GROUP, (size_t)index * groups() + g);
        }
    }

  private:
    void put_group(int8_t* to, const float* x, size_t at) const {
        f32x16 most_v{};
        for (int k = 0; k < GROUP; k += LANES) most_v = maximum(most_v, absolute(load_f32(x + k)));
        const float most = largest(most_v);
        const float inverse = most > 0 ? 127.0f / most : 0;
        i32x16 total{};
        for (int k = 0; k < GROUP; k += LANES) {
            const i32x16 q = rounded(load_f32(x + k) * inverse);
            total += q;
            store(to + k, __builtin_convertvector(q, i8x16));
        }
        int32_t lanes[LANES], all = 0;
        store(lanes, total);
        for (int lane : lanes) all += lane;
        scales[at] = most / 127.0f;
        offsets[at] = -128 * all;
    }
};

}  // namespace fulmen
