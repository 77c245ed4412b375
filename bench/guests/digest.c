/* Hash functions: SHA-256 (FIPS 180-4, 32-bit words) and BLAKE2b (RFC 7693, 64-bit words) over the same generated buffer.
 *
 * usage: digest [kibibytes [rounds]]     prints test vectors of both, digests of the last buffer and of a chain of digests
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- SHA-256 ---- */

/* The constants are the first 32 bits of the fractional parts of square and cube roots of primes: computed with integers. */
static uint32_t sha_round[64], sha_initial[8];

static uint64_t integer_root(uint64_t prime, int degree) {
    /* floor(prime^(1/degree) * 2^32) modulo 2^32, by binary search on 40-bit candidates in 128-bit arithmetic */
    uint64_t low = 0, high = (uint64_t)1 << 40;
    while (low + 1 < high) {
        uint64_t middle = (low + high) / 2;
        /* middle^degree <= prime << (32*degree)?  Work with limbs of 32 bits to stay within 64-bit integers. */
        uint32_t product[5] = {(uint32_t)middle, (uint32_t)(middle >> 32), 0, 0, 0};
        for (int power = 1; power < degree; power++) {
            uint32_t next[5] = {0};
            for (int i = 0; i < 5; i++) {
                uint64_t carry = 0;
                for (int j = 0; i + j < 5 && j < 2; j++) {
                    uint64_t limb = j == 0 ? (uint32_t)middle : middle >> 32;
                    uint64_t sum = (uint64_t)product[i] * limb + next[i + j] + carry;
                    next[i + j] = (uint32_t)sum;
                    carry = sum >> 32;
                }
                for (int k = i + 2; carry && k < 5; k++) {
                    uint64_t sum = (uint64_t)next[k] + carry;
                    next[k] = (uint32_t)sum;
                    carry = sum >> 32;
                }
            }
            memcpy(product, next, sizeof product);
        }
        uint64_t whole = (uint64_t)product[degree] | (degree + 1 < 5 ? (uint64_t)product[degree + 1] << 32 : 0);
        if (whole < prime) low = middle;
        else high = middle;
    }
    return low & 0xffffffffu;
}

static void sha_constants(void) {
    int found = 0;
    for (uint32_t candidate = 2; found < 64; candidate++) {
        int prime = 1;
        for (uint32_t d = 2; d * d <= candidate; d++)
            if (candidate % d == 0) prime = 0;
        if (!prime) continue;
        sha_round[found] = (uint32_t)integer_root(candidate, 3);
        if (found < 8) sha_initial[found] = (uint32_t)integer_root(candidate, 2);
        found++;
    }
}

static uint32_t rotate32(uint32_t x, int n) { return x >> n | x << (32 - n); }

static uint32_t big_endian(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void sha_block(uint32_t state[8], const uint8_t *block) {
    uint32_t w[64];
    for (int i = 0; i < 16; i++) w[i] = big_endian(block + 4 * i);
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate32(w[i - 15], 7) ^ rotate32(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate32(w[i - 2], 17) ^ rotate32(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotate32(e, 6) ^ rotate32(e, 11) ^ rotate32(e, 25);
        uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + sha_round[i] + w[i];
        uint32_t s0 = rotate32(a, 2) ^ rotate32(a, 13) ^ rotate32(a, 22);
        uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g; g = f; f = e; e = d + t1;
        d = c; c = b; b = a; a = t1 + t2;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d;
    state[4] += e; state[5] += f; state[6] += g; state[7] += h;
}

static void sha256(const uint8_t *data, size_t size, uint8_t digest[32]) {
    uint32_t state[8];
    uint8_t tail[128] = {0};
    size_t full = size / 64, rest = size % 64, tail_size = rest < 56 ? 64 : 128;
    memcpy(state, sha_initial, sizeof state);
    for (size_t i = 0; i < full; i++) sha_block(state, data + 64 * i);
    memcpy(tail, data + 64 * full, rest);
    tail[rest] = 0x80;
    for (int i = 0; i < 8; i++) tail[tail_size - 1 - i] = (uint8_t)((uint64_t)size * 8 >> (8 * i));
    for (size_t i = 0; i < tail_size; i += 64) sha_block(state, tail + i);
    for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

/* ---- BLAKE2b ---- */

static const uint64_t blake_initial[8] = {
    0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
    0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u,
};

static const uint8_t sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static uint64_t rotate64(uint64_t x, int n) { return x >> n | x << (64 - n); }

#define MIX(a, b, c, d, x, y)                    \
    do {                                         \
        v[a] += v[b] + (x);                      \
        v[d] = rotate64(v[d] ^ v[a], 32);        \
        v[c] += v[d];                            \
        v[b] = rotate64(v[b] ^ v[c], 24);        \
        v[a] += v[b] + (y);                      \
        v[d] = rotate64(v[d] ^ v[a], 16);        \
        v[c] += v[d];                            \
        v[b] = rotate64(v[b] ^ v[c], 63);        \
    } while (0)

static void blake_block(uint64_t h[8], const uint8_t *block, uint64_t count, int last) {
    uint64_t v[16], m[16];
    for (int i = 0; i < 16; i++) {
        m[i] = 0;
        for (int k = 7; k >= 0; k--) m[i] = m[i] << 8 | block[8 * i + k];
    }
    for (int i = 0; i < 8; i++) v[i] = h[i], v[i + 8] = blake_initial[i];
    v[12] ^= count;
    if (last) v[14] = ~v[14];
    for (int round = 0; round < 12; round++) {
        const uint8_t *s = sigma[round % 10];
        MIX(0, 4, 8, 12, m[s[0]], m[s[1]]);
        MIX(1, 5, 9, 13, m[s[2]], m[s[3]]);
        MIX(2, 6, 10, 14, m[s[4]], m[s[5]]);
        MIX(3, 7, 11, 15, m[s[6]], m[s[7]]);
        MIX(0, 5, 10, 15, m[s[8]], m[s[9]]);
        MIX(1, 6, 11, 12, m[s[10]], m[s[11]]);
        MIX(2, 7, 8, 13, m[s[12]], m[s[13]]);
        MIX(3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
}

static void blake2b(const uint8_t *data, size_t size, uint8_t digest[64]) {
    uint64_t h[8];
    uint8_t tail[128] = {0};
    size_t at = 0;
    memcpy(h, blake_initial, sizeof h);
    h[0] ^= 0x01010040u; /* digest of 64 bytes, no key */
    for (; size - at > 128; at += 128) blake_block(h, data + at, at + 128, 0);
    memcpy(tail, data + at, size - at);
    blake_block(h, tail, size, 1);
    for (int i = 0; i < 64; i++) digest[i] = (uint8_t)(h[i / 8] >> (8 * (i % 8)));
}

static void print_hex(const char *label, const uint8_t *bytes, int size) {
    printf("%-16s ", label);
    for (int i = 0; i < size; i++) printf("%02x", bytes[i]);
    printf("\n");
}

int main(int argc, char **argv) {
    int size = (argc > 1 ? atoi(argv[1]) : 256) * 1024, rounds = argc > 2 ? atoi(argv[2]) : 1;
    if (size <= 0 || rounds < 1) return 1;
    uint8_t first[64], second[64], chain[64] = {0}, *data = malloc((size_t)size);
    if (!data) return 1;
    sha_constants();
    sha256((const uint8_t *)"abc", 3, first);
    print_hex("sha256 abc", first, 32);
    blake2b((const uint8_t *)"abc", 3, second);
    print_hex("blake2b abc", second, 64);
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < size; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            data[i] = (uint8_t)(state >> 56);
        }
        sha256(data, (size_t)size, first);
        blake2b(data, (size_t)size, second);
        for (int i = 0; i < 32; i++) chain[i] ^= first[i], chain[i + 32] ^= second[i];
        for (int i = 0; i < size / 128; i++) { /* short messages: the cost of set-up and padding counts */
            sha256(chain, 64, chain);
            blake2b(chain, 64, chain);
        }
    }
    print_hex("sha256 buffer", first, 32);
    print_hex("blake2b buffer", second, 64);
    print_hex("chain", chain, 64);
    return 0;
}
