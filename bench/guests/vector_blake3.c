/* BLAKE3's compression function over four chunks at a time (the wide half of a BLAKE3 implementation): additions,
 * exclusive ors, rotations and transpositions of u32x4, checked against the compression function in plain C.
 *
 * usage: vector_blake3 [kibibytes [rounds]]     prints the chaining values of the last four chunks
 */
#include "vectors.h"
#include <stdio.h>
#include <stdlib.h>

enum { CHUNK = 1024, BLOCK = 64, CHUNK_START = 1, CHUNK_END = 2 };

static const uint32_t IV[8] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                               0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
static const uint8_t PERMUTATION[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};

#define ROTATE(x, n) ((x) >> (n) | (x) << (32 - (n)))

#define G(a, b, c, d, x, y)                                                                                          \
    do {                                                                                                             \
        a = a + b + x;                                                                                               \
        d = ROTATE(d ^ a, 16);                                                                                       \
        c = c + d;                                                                                                   \
        b = ROTATE(b ^ c, 12);                                                                                       \
        a = a + b + y;                                                                                               \
        d = ROTATE(d ^ a, 8);                                                                                        \
        c = c + d;                                                                                                   \
        b = ROTATE(b ^ c, 7);                                                                                        \
    } while (0)

#define ROUND(v, m, s)                                                                                               \
    do {                                                                                                             \
        G(v[0], v[4], v[8], v[12], m[s[0]], m[s[1]]);                                                                \
        G(v[1], v[5], v[9], v[13], m[s[2]], m[s[3]]);                                                                \
        G(v[2], v[6], v[10], v[14], m[s[4]], m[s[5]]);                                                               \
        G(v[3], v[7], v[11], v[15], m[s[6]], m[s[7]]);                                                               \
        G(v[0], v[5], v[10], v[15], m[s[8]], m[s[9]]);                                                               \
        G(v[1], v[6], v[11], v[12], m[s[10]], m[s[11]]);                                                             \
        G(v[2], v[7], v[8], v[13], m[s[12]], m[s[13]]);                                                              \
        G(v[3], v[4], v[9], v[14], m[s[14]], m[s[15]]);                                                              \
    } while (0)

static const uint8_t SCHEDULE[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1}, {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4}, {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13}};

static void transpose(u32x4 v[4]) {
    u32x4 a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5), b = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
    u32x4 c = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5), d = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
    v[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5), v[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    v[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5), v[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

/* The chaining values of four chunks in a row; `counter` is the number of the first. */
static void four_chunks(const uint8_t *input, uint32_t counter, uint32_t out[4][8]) {
    u32x4 h[8];
    for (int k = 0; k < 8; k++) h[k] = (u32x4){0, 0, 0, 0} + IV[k];
    for (int block = 0; block < CHUNK / BLOCK; block++) {
        u32x4 m[16];
        for (int k = 0; k < 4; k++) {
            for (int lane = 0; lane < 4; lane++)
                m[4 * k + lane] = (u32x4)load_bytes(input + CHUNK * lane + BLOCK * block + 16 * k);
            transpose(m + 4 * k);
        }
        uint32_t flags = (block == 0 ? CHUNK_START : 0) | (block == CHUNK / BLOCK - 1 ? CHUNK_END : 0);
        u32x4 zero = {0, 0, 0, 0};
        u32x4 v[16] = {h[0],         h[1],         h[2],         h[3],         h[4],
                       h[5],         h[6],         h[7],         zero + IV[0], zero + IV[1],
                       zero + IV[2], zero + IV[3], {counter, counter + 1, counter + 2, counter + 3},
                       zero,         zero + BLOCK, zero + flags};
        ROUND(v, m, SCHEDULE[0]);
        ROUND(v, m, SCHEDULE[1]);
        ROUND(v, m, SCHEDULE[2]);
        ROUND(v, m, SCHEDULE[3]);
        ROUND(v, m, SCHEDULE[4]);
        ROUND(v, m, SCHEDULE[5]);
        ROUND(v, m, SCHEDULE[6]);
        for (int k = 0; k < 8; k++) h[k] = v[k] ^ v[k + 8];
    }
    transpose(h);
    transpose(h + 4);
    for (int lane = 0; lane < 4; lane++) {
        store_bytes(out[lane], (u8x16)h[lane]);
        store_bytes(out[lane] + 4, (u8x16)h[4 + lane]);
    }
}

static void one_chunk(const uint8_t *input, uint32_t counter, uint32_t h[8]) {
    memcpy(h, IV, sizeof IV);
    for (int block = 0; block < CHUNK / BLOCK; block++) {
        uint32_t m[16], permuted[16];
        memcpy(m, input + BLOCK * block, BLOCK);
        uint32_t flags = (block == 0 ? CHUNK_START : 0) | (block == CHUNK / BLOCK - 1 ? CHUNK_END : 0);
        uint32_t v[16] = {h[0],  h[1],  h[2],  h[3],  h[4],    h[5], h[6],  h[7],
                          IV[0], IV[1], IV[2], IV[3], counter, 0,    BLOCK, flags};
        for (int round = 0; round < 7; round++) {
            ROUND(v, m, SCHEDULE[0]);
            for (int k = 0; k < 16; k++) permuted[k] = m[PERMUTATION[k]];
            memcpy(m, permuted, sizeof m);
        }
        for (int k = 0; k < 8; k++) h[k] = v[k] ^ v[k + 8];
    }
}

int main(int argc, char **argv) {
    int size = argc > 1 ? atoi(argv[1]) : 16, rounds = argc > 2 ? atoi(argv[2]) : 1;
    if (size < 4 || size > 65536 || rounds < 1) {
        printf("usage: vector_blake3 [kibibytes [rounds]]\n");
        return 1;
    }
    size &= ~3;
    uint8_t *input = malloc((size_t)size * CHUNK);
    if (!input) return 1;
    uint32_t seed = 7, values[4][8], plain[8];
    for (int k = 0; k < size * CHUNK; k++) {
        seed = seed * 1664525u + 1013904223u;
        input[k] = (uint8_t)(seed >> 24);
    }
    uint32_t mixed = 0;
    for (int round = 0; round < rounds; round++)
        for (int k = 0; k < size; k += 4) {
            four_chunks(input + k * CHUNK, (uint32_t)(round * size + k), values);
            mixed = mixed * 31 + values[3][7];
        }
    for (int lane = 0; lane < 4; lane++) {
        one_chunk(input + (size - 4 + lane) * CHUNK, (uint32_t)(rounds * size - 4 + lane), plain);
        for (int k = 0; k < 8; k++) printf("%08x", values[lane][k]);
        printf(" %s\n", memcmp(plain, values[lane], sizeof plain) ? "DIFFER" : "equal");
    }
    printf("%08x\ndone\n", mixed);
    free(input);
    return 0;
}
