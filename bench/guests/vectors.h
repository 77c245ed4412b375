/* Vectors of 16 bytes for the guests that measure them: GNU vector types, which mean the same in wasm with SIMD and on
 * x86, and the few operations that have no portable spelling.
 */
#ifndef GUEST_VECTORS_H
#define GUEST_VECTORS_H

#include <stdint.h>
#include <string.h>

typedef float f32x4 __attribute__((vector_size(16)));
typedef double f64x2 __attribute__((vector_size(16)));
typedef int8_t i8x16 __attribute__((vector_size(16)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef int16_t i16x8 __attribute__((vector_size(16)));
typedef uint16_t u16x8 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef int64_t i64x2 __attribute__((vector_size(16)));

#ifdef __wasm_simd128__
#include <wasm_simd128.h>

static inline u8x16 swizzle(u8x16 table, u8x16 index) { return (u8x16)wasm_i8x16_swizzle((v128_t)table, (v128_t)index); }
static inline int bitmask8(i8x16 v) { return (int)wasm_i8x16_bitmask((v128_t)v); }
static inline int bitmask32(i32x4 v) { return (int)wasm_i32x4_bitmask((v128_t)v); }
static inline int bitmask64(i64x2 v) { return (int)wasm_i64x2_bitmask((v128_t)v); }
static inline u8x16 subtract_saturating(u8x16 a, u8x16 b) { return (u8x16)wasm_u8x16_sub_sat((v128_t)a, (v128_t)b); }
static inline i32x4 dot(i16x8 a, i16x8 b) { return (i32x4)wasm_i32x4_dot_i16x8((v128_t)a, (v128_t)b); }
static inline i16x8 pairs_of_bytes(u8x16 even_weight_40_odd_1) {
    /* 64 * even + odd: bytes of six bits, so that nothing overflows */
    u16x8 v = (u16x8)even_weight_40_odd_1;
    return (i16x8)(((v & 0xff) << 6) + (v >> 8));
}
#else
#include <immintrin.h>

static inline u8x16 swizzle(u8x16 table, u8x16 index) {
    return (u8x16)_mm_shuffle_epi8((__m128i)table, _mm_adds_epu8((__m128i)index, _mm_set1_epi8(0x70)));
}
static inline int bitmask8(i8x16 v) { return _mm_movemask_epi8((__m128i)v); }
static inline int bitmask32(i32x4 v) { return _mm_movemask_ps((__m128)v); }
static inline int bitmask64(i64x2 v) { return _mm_movemask_pd((__m128d)v); }
static inline u8x16 subtract_saturating(u8x16 a, u8x16 b) { return (u8x16)_mm_subs_epu8((__m128i)a, (__m128i)b); }
static inline i32x4 dot(i16x8 a, i16x8 b) { return (i32x4)_mm_madd_epi16((__m128i)a, (__m128i)b); }
static inline i16x8 pairs_of_bytes(u8x16 v) {
    return (i16x8)_mm_maddubs_epi16((__m128i)v, _mm_set1_epi16(0x0140));
}
#endif

static inline u8x16 load_bytes(const void *p) {
    u8x16 v;
    memcpy(&v, p, 16);
    return v;
}
static inline void store_bytes(void *p, u8x16 v) { memcpy(p, &v, 16); }

#endif
