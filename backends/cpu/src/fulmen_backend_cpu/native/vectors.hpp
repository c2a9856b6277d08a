// Sixteen lanes on every processor: GCC's vector extension, which becomes one AVX-512 register, two of AVX2 or four of
// NEON, with intrinsics only where the compiler cannot know better.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace fulmen {

constexpr int LANES = 16;

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));
typedef int8_t i8x16 __attribute__((vector_size(16)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));

template <class V, class T>
inline V load(const T* from) {
    V v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

template <class V, class T>
inline void store(T* to, V v) {
    __builtin_memcpy(to, &v, sizeof v);
}

inline f32x16 splat(float x) { return f32x16{} + x; }
inline f32x16 load_f32(const float* from) { return load<f32x16>(from); }

inline f32x16 maximum(f32x16 a, f32x16 b) {
#if defined(__AVX512F__)
    return (f32x16)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return a > b ? a : b;
#endif
}

inline float sum(f32x16 v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float lanes[LANES], total = 0;
    store(lanes, v);
    for (int step = 8; step; step /= 2)
        for (int i = 0; i < step; i++) lanes[i] += lanes[i + step];
    total = lanes[0];
    return total;
#endif
}

inline float largest(f32x16 v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float lanes[LANES];
    store(lanes, v);
    for (int step = 8; step; step /= 2)
        for (int i = 0; i < step; i++) lanes[i] = lanes[i] > lanes[i + step] ? lanes[i] : lanes[i + step];
    return lanes[0];
#endif
}

// a * b + c with one rounding. By name: left to itself the compiler chooses by what lies around.
inline f32x16 multiply_add(f32x16 a, f32x16 b, f32x16 c) {
#if defined(__AVX512F__)
    return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
    f32x16 result;
    for (int i = 0; i < LANES; i++) result[i] = std::fma(a[i], b[i], c[i]);
    return result;
#endif
}

inline f32x16 absolute(f32x16 v) { return (f32x16)((u32x16)v & 0x7fffffffu); }

// exp(x) to two units in the last place for x in [-87, 88]; below, it is 0 (Cephes' expf).
inline f32x16 exponential(f32x16 x) {
    const f32x16 limited = maximum(x, splat(-87.0f));
    const f32x16 magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    const f32x16 n = (limited * 1.44269504088896341f + magic) - magic;
    f32x16 r = limited - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    f32x16 p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const i32x16 exponent = (__builtin_convertvector(n, i32x16) + 127) << 23;
    p = p * (f32x16)exponent;
    return (f32x16)((i32x16)p & (x >= -87.0f));
}

inline f32x16 sigmoid(f32x16 x) { return 1.0f / (1.0f + exponential(-x)); }
inline f32x16 silu(f32x16 x) { return x * sigmoid(x); }

// bfloat16, rounded to nearest even.
inline u16x16 to_bf16(f32x16 v) {
#if defined(__AVX512BF16__)
    return (u16x16)_mm512_cvtneps_pbh((__m512)v);
#else
    u32x16 bits = (u32x16)v;
    bits += 0x7fffu + ((bits >> 16) & 1u);
    return __builtin_convertvector(bits >> 16, u16x16);
#endif
}

inline f32x16 from_bf16(u16x16 v) {
#if defined(__AVX512F__)
    return (f32x16)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)v), 16);  // gcc 12 converts by halves
#else
    return (f32x16)(__builtin_convertvector(v, u32x16) << 16);
#endif
}

inline uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    bits += 0x7fffu + ((bits >> 16) & 1u);
    return (uint16_t)(bits >> 16);
}

inline float from_bf16(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline i32x16 rounded(f32x16 v) {
    const f32x16 magic = splat(12582912.0f);
    return __builtin_convertvector((v + magic) - magic, i32x16);
}

inline int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace fulmen
