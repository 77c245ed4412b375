/* Base64 with vectors: 12 bytes to 16 characters and back by table look-ups with swizzles, range checks with masks, and
 * multiplications that shift, checked by decoding what was encoded and against the plain loop.
 *
 * usage: vector_base64 [kibibytes [rounds]]
 */
#include "vectors.h"
#include <stdio.h>
#include <stdlib.h>

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Three bytes of every group of four, as four numbers of six bits. */
static u8x16 split(u8x16 in) {
    u32x4 v = (u32x4)__builtin_shufflevector(in, in, 2, 1, 0, 2, 5, 4, 3, 5, 8, 7, 6, 8, 11, 10, 9, 11);
    return (u8x16)((v >> 18 & 0x3f) | (v >> 4 & 0x3f00) | (v << 10 & 0x3f0000) | (v << 24 & 0x3f000000));
}

static u8x16 to_characters(u8x16 six) {
    /* The class of each number picks what to add: capitals, small letters, each digit, plus, slash. */
    u8x16 class = subtract_saturating(six, (u8x16){0} + 51);
    u8x16 capital = (u8x16)(six < 26);
    class |= capital & 13;
    u8x16 offsets = {'a' - 26, 252, 252, 252, 252, 252, 252, 252, 252, 252, 252, 237, 240, 'A', 0, 0};
    return six + swizzle(offsets, class);
}

static size_t encode(const uint8_t *in, size_t size, uint8_t *out) {
    uint8_t *start = out;
    size_t at = 0;
    for (; at + 16 <= size; at += 12, out += 16) store_bytes(out, to_characters(split(load_bytes(in + at))));
    for (; at + 3 <= size; at += 3) {
        uint32_t v = (uint32_t)in[at] << 16 | (uint32_t)in[at + 1] << 8 | in[at + 2];
        for (int k = 18; k >= 0; k -= 6) *out++ = (uint8_t)ALPHABET[v >> k & 63];
    }
    return (size_t)(out - start);
}

/* Returns whether all characters were of the alphabet. */
static int decode(const uint8_t *in, size_t size, uint8_t *out) {
    int bad = 0;
    for (size_t at = 0; at + 16 <= size; at += 16, out += 12) {
        u8x16 c = load_bytes(in + at);
        u8x16 capital = (u8x16)((u8x16)(c - 'A') < 26), small = (u8x16)((u8x16)(c - 'a') < 26);
        u8x16 digit = (u8x16)((u8x16)(c - '0') < 10), plus = (u8x16)(c == '+'), slash = (u8x16)(c == '/');
        u8x16 known = capital | small | digit | plus | slash;
        bad |= bitmask8((i8x16)known) ^ 0xffff;
        u8x16 six = (capital & (u8x16)(c - 'A')) | (small & (u8x16)(c - ('a' - 26))) | (digit & (u8x16)(c + 4)) |
                    (plus & 62) | (slash & 63);
        i32x4 v = dot(pairs_of_bytes(six), (i16x8){4096, 1, 4096, 1, 4096, 1, 4096, 1});
        u8x16 bytes = (u8x16)v;
        bytes = __builtin_shufflevector(bytes, bytes, 2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, 3, 3, 3, 3);
        store_bytes(out, bytes);
    }
    return !bad;
}

int main(int argc, char **argv) {
    int size = argc > 1 ? atoi(argv[1]) : 16, rounds = argc > 2 ? atoi(argv[2]) : 1;
    if (size < 1 || size > 65536 || rounds < 1) {
        printf("usage: vector_base64 [kibibytes [rounds]]\n");
        return 1;
    }
    size_t bytes = (size_t)size * 1024 / 12 * 12;
    uint8_t *data = malloc(bytes + 16), *text = malloc(bytes / 3 * 4 + 32), *back = malloc(bytes + 32);
    if (!data || !text || !back) return 1;
    uint32_t seed = 99, sum = 0;
    for (size_t k = 0; k < bytes; k++) {
        seed = seed * 1664525u + 1013904223u;
        data[k] = (uint8_t)(seed >> 24);
    }
    int good = 1;
    size_t written = 0;
    for (int round = 0; round < rounds; round++) {
        written = encode(data, bytes, text);
        good &= decode(text, written, back);
        sum = sum * 31 + text[(size_t)round % written];
        data[(size_t)round % bytes] ^= (uint8_t)sum;
        good &= back[bytes - 1] == data[bytes - 1] || (size_t)round % bytes == bytes - 1;
    }
    written = encode(data, bytes, text);
    good &= decode(text, written, back) && !memcmp(data, back, bytes);
    size_t wrong = 0;
    for (size_t at = 0; at < bytes; at += 3) {
        uint32_t v = (uint32_t)data[at] << 16 | (uint32_t)data[at + 1] << 8 | data[at + 2];
        for (int k = 0; k < 4; k++) wrong += text[at / 3 * 4 + (size_t)k] != (uint8_t)ALPHABET[v >> (18 - 6 * k) & 63];
    }
    text[64] = 0;
    printf("%zu characters %08x %s, %zu wrong\n%s\n", written, sum, good ? "equal" : "DIFFER", wrong, (char *)text);
    text[0] = '-';
    printf("%s\ndone\n", decode(text, written, back) ? "a stroke was accepted" : "a stroke was refused");
    free(data), free(text), free(back);
    return 0;
}
