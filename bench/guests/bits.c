/* Bit tricks: a segmented sieve on a bitmap, queens by bit masks, popcount, leading and trailing zeros, rotations, modular
 * powers with 64-bit products, and Miller-Rabin against the sieve.
 *
 * usage: bits [scale]     prints counts and mixed sums
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEGMENT = 1 << 16 }; /* odd numbers in a segment */

static uint64_t bitmap[SEGMENT / 64];

typedef struct {
    uint32_t primes, twins, largest;
    uint64_t mixed;
} Sieve;

static uint64_t rotate(uint64_t x, int n) { return x << n | x >> (64 - n); }

static Sieve sieve(uint32_t limit) {
    Sieve result = {1, 0, 2, 2};
    uint32_t root = 1;
    while ((uint64_t)(root + 1) * (root + 1) <= limit) root++;
    uint8_t *composite = calloc(root + 1, 1);
    uint32_t *small = malloc(sizeof(uint32_t) * (root + 1)), *next = malloc(sizeof(uint32_t) * (root + 1));
    if (!composite || !small || !next) exit(1);
    uint32_t count = 0;
    for (uint32_t i = 3; i <= root; i += 2) {
        if (composite[i]) continue;
        small[count] = i;
        next[count++] = (i * i - 3) / 2; /* index of the first multiple to strike; index k stands for 2k+3 */
        for (uint32_t j = i * i; j <= root; j += 2 * i) composite[j] = 1;
    }
    uint32_t last = (limit - 3) / 2, previous = 0;
    for (uint32_t base = 0; base <= last; base += SEGMENT) {
        memset(bitmap, 0xff, sizeof bitmap);
        for (uint32_t p = 0; p < count; p++) {
            uint32_t k = next[p] - base;
            for (; k < SEGMENT; k += small[p]) bitmap[k >> 6] &= ~((uint64_t)1 << (k & 63));
            next[p] = k + base;
        }
        uint32_t valid = last - base + 1 < SEGMENT ? last - base + 1 : SEGMENT;
        for (uint32_t word = 0; word * 64 < valid; word++) {
            uint64_t set = bitmap[word];
            if (valid - word * 64 < 64) set &= ((uint64_t)1 << (valid - word * 64)) - 1;
            result.primes += (uint32_t)__builtin_popcountll(set);
            while (set) {
                uint32_t prime = 2 * (base + word * 64 + (uint32_t)__builtin_ctzll(set)) + 3;
                result.twins += prime - previous == 2;
                previous = prime;
                result.mixed = rotate(result.mixed, 7) ^ prime;
                set &= set - 1;
            }
        }
    }
    result.largest = previous;
    free(composite);
    free(small);
    free(next);
    return result;
}

static uint32_t queens(uint32_t all, uint32_t columns, uint32_t left, uint32_t right) {
    if (columns == all) return 1;
    uint32_t solutions = 0;
    for (uint32_t open = all & ~(columns | left | right); open;) {
        uint32_t bit = open & -open;
        open -= bit;
        solutions += queens(all, columns | bit, (left | bit) << 1, (right | bit) >> 1);
    }
    return solutions;
}

static uint32_t power(uint32_t base, uint32_t exponent, uint32_t modulus) {
    uint64_t result = 1, factor = base % modulus;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1) result = result * factor % modulus;
        factor = factor * factor % modulus;
    }
    return (uint32_t)result;
}

static int is_prime(uint32_t n) {
    static const uint32_t witnesses[] = {2, 7, 61}; /* enough below 4,759,123,141 */
    if (n < 2 || n % 2 == 0) return n == 2;
    int twos = __builtin_ctz(n - 1);
    for (int i = 0; i < 3; i++) {
        if (n == witnesses[i]) return 1;
        uint64_t x = power(witnesses[i], (n - 1) >> twos, n);
        if (x == 1 || x == n - 1) continue;
        int composite = 1;
        for (int r = 1; r < twos && composite; r++) {
            x = x * x % n;
            composite = x != n - 1;
        }
        if (composite) return 0;
    }
    return 1;
}

static uint64_t tricks(int rounds) {
    uint64_t x = 0x123456789abcdef1u, sum = 0;
    for (int i = 0; i < rounds; i++) {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        uint64_t gray = x ^ x >> 1, spread = x & 0xffffffffu;
        spread = (spread | spread << 16) & 0x0000ffff0000ffffu;
        spread = (spread | spread << 8) & 0x00ff00ff00ff00ffu;
        spread = (spread | spread << 4) & 0x0f0f0f0f0f0f0f0fu;
        spread = (spread | spread << 2) & 0x3333333333333333u;
        spread = (spread | spread << 1) & 0x5555555555555555u;
        uint32_t high = (uint32_t)(x >> 32), reversed = __builtin_bswap32(high);
        sum += (uint64_t)__builtin_popcountll(gray) + (uint64_t)__builtin_clzll(x | 1) * 3 + (uint64_t)__builtin_ctz(high | 1u << 31);
        sum = rotate(sum, (int)(x & 31) + 1) + spread;
        sum ^= (uint64_t)(int64_t)(int8_t)x ^ (uint64_t)(int64_t)(int16_t)(x >> 20) ^ reversed;
        sum += (uint64_t)((int32_t)high >> (x & 15)) + (uint64_t)((int64_t)x >> 17);
    }
    return sum;
}

int main(int argc, char **argv) {
    int scale = argc > 1 ? atoi(argv[1]) : 1;
    if (scale < 1 || scale > 1000) return 1;
    Sieve s = sieve(1000000u * (uint32_t)scale);
    printf("primes %u twins %u largest %u mixed %016llx\n", (unsigned)s.primes, (unsigned)s.twins, (unsigned)s.largest,
           (unsigned long long)s.mixed);
    int size = 8;
    for (int k = scale; k > 2; k /= 3) size++;
    printf("queens on %d: %u\n", size, (unsigned)queens((1u << size) - 1, 0, 0, 0));
    uint32_t probable = 0;
    for (uint32_t i = 0, n = 4000000007u; i < 4000u * (uint32_t)scale; i++, n -= 38) probable += (uint32_t)is_prime(n);
    printf("probable primes %u\n", (unsigned)probable);
    printf("tricks %016llx\n", (unsigned long long)tricks(100000 * scale));
    return 0;
}
