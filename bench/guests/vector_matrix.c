/* Matrix products with vectors: f32 in blocks of 4 x 8 results kept in registers, f64 in blocks of 2 x 4, each checked
 * against the plain loop, which adds the same products in the same order.
 *
 * usage: vector_matrix [order [rounds]]     the order is rounded up to a multiple of 8
 */
#include "vectors.h"
#include <stdio.h>
#include <stdlib.h>

static uint32_t seed = 2024;

static double next_random(void) { /* a multiple of 2^-12 in [-1, 1) */
    seed = seed * 1664525u + 1013904223u;
    return (double)((int32_t)seed >> 19) / 4096.0;
}

#define PRODUCT(NAME, SCALAR, VECTOR, LANES, ROWS, COLUMNS)                                                          \
    static void NAME(const SCALAR *a, const SCALAR *b, SCALAR *c, int n) {                                           \
        for (int i = 0; i < n; i += ROWS)                                                                            \
            for (int j = 0; j < n; j += COLUMNS * LANES) {                                                           \
                VECTOR sums[ROWS][COLUMNS] = {{{0}}};                                                                \
                for (int k = 0; k < n; k++) {                                                                        \
                    VECTOR row[COLUMNS];                                                                             \
                    memcpy(row, b + k * n + j, sizeof row);                                                          \
                    for (int r = 0; r < ROWS; r++) {                                                                 \
                        SCALAR factor = a[(i + r) * n + k];                                                          \
                        for (int v = 0; v < COLUMNS; v++) sums[r][v] += row[v] * factor;                             \
                    }                                                                                                \
                }                                                                                                    \
                for (int r = 0; r < ROWS; r++) memcpy(c + (i + r) * n + j, sums[r], sizeof sums[r]);                 \
            }                                                                                                        \
    }                                                                                                                \
    static void NAME##_plain(const SCALAR *a, const SCALAR *b, SCALAR *c, int n) {                                   \
        for (int i = 0; i < n; i++)                                                                                  \
            for (int j = 0; j < n; j++) {                                                                            \
                SCALAR sum = 0;                                                                                      \
                for (int k = 0; k < n; k++) sum += b[k * n + j] * a[i * n + k];                                      \
                c[i * n + j] = sum;                                                                                  \
            }                                                                                                        \
    }

PRODUCT(singles, float, f32x4, 4, 4, 2)
PRODUCT(doubles, double, f64x2, 2, 4, 2)

static void *allocate(size_t size) {
    void *p = malloc(size);
    if (!p) exit(1);
    return p;
}

#define RUN(NAME, SCALAR, FORMAT)                                                                                    \
    static void run_##NAME(int n, int rounds) {                                                                      \
        size_t size = sizeof(SCALAR) * (size_t)n * (size_t)n;                                                        \
        SCALAR *a = allocate(size), *b = allocate(size), *c = allocate(size), *d = allocate(size);                   \
        for (int k = 0; k < n * n; k++) a[k] = (SCALAR)next_random(), b[k] = (SCALAR)next_random();                  \
        for (int round = 0; round < rounds; round++) {                                                               \
            NAME(a, b, c, n);                                                                                        \
            for (int k = 0; k < n * n; k++) a[k] = a[k] * (SCALAR)0.5 + c[k] / (SCALAR)(4 * n);                      \
        }                                                                                                            \
        NAME(a, b, c, n);                                                                                            \
        NAME##_plain(a, b, d, n);                                                                                    \
        double norm = 0;                                                                                             \
        for (int k = 0; k < n * n; k++) norm += (double)c[k] * (double)c[k];                                         \
        printf(#NAME " %d: " FORMAT " %s\n", n, norm, memcmp(c, d, size) ? "DIFFER" : "equal");                      \
        free(a), free(b), free(c), free(d);                                                                          \
    }

RUN(singles, float, "%.9g")
RUN(doubles, double, "%.17g")

int main(int argc, char **argv) {
    int n = argc > 1 ? atoi(argv[1]) : 128, rounds = argc > 2 ? atoi(argv[2]) : 1;
    if (n < 1 || n > 4096 || rounds < 0) {
        printf("usage: vector_matrix [order [rounds]]\n");
        return 1;
    }
    n = (n + 7) & ~7;
    run_singles(n, rounds);
    run_doubles(n, rounds);
    printf("done\n");
    return 0;
}
