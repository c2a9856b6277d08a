// What every training kernel stands on: elements read as float and written rounded, and rows shared among threads.
//
// A row's length is a multiple of LANES. Sums over rows are taken per chunk of rows and the chunks added in order, so that no
// result depends on how many threads there are.
#pragma once

#include "../native/vectors.hpp"

#include <algorithm>
#include <vector>

namespace fulmen {

inline f32x16 get(const float* from) { return load_f32(from); }
inline f32x16 get(const uint16_t* from) { return from_bf16(load<u16x16>(from)); }
inline void put(float* to, f32x16 v) { store(to, v); }
inline void put(uint16_t* to, f32x16 v) { store(to, to_bf16(v)); }
inline float get_one(const float* from) { return *from; }
inline float get_one(const uint16_t* from) { return from_bf16(*from); }

constexpr int CHUNKS = 32;  // of rows, for sums over all rows

template <class F>
inline void for_rows(int64_t rows, int threads, const F& f) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t r = 0; r < rows; r++) f(r);
}

// f(row, sum) for every row, where `sum` has `width` floats; `total` gets what all rows added.
template <class F>
inline void sum_rows(int64_t rows, int width, int threads, float* total, const F& f) {
    std::vector<float> sums((size_t)CHUNKS * width, 0.0f);
    const int64_t each = (rows + CHUNKS - 1) / CHUNKS;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int chunk = 0; chunk < CHUNKS; chunk++)
        for (int64_t r = chunk * each; r < std::min(rows, (chunk + 1) * each); r++) f(r, sums.data() + (size_t)chunk * width);
    std::fill(total, total + width, 0.0f);
    for (int chunk = 0; chunk < CHUNKS; chunk++)
        for (int i = 0; i < width; i++) total[i] += sums[(size_t)chunk * width + i];
}

}  // namespace fulmen
