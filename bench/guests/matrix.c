/* A matrix kernel in f64: plain and tiled products, LU decomposition with partial pivoting, and a power iteration.
 *
 * usage: matrix [order [rounds]]     prints norms with 12 digits, the same wherever IEEE 754 holds without contraction
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = 32 };

static uint32_t seed = 12345;

static double next_random(void) { /* in [-1, 1), exact in binary */
    seed = seed * 1664525u + 1013904223u;
    return (double)(int32_t)seed / 2147483648.0;
}

static double *allocate(int n) {
    double *m = malloc(sizeof(double) * (size_t)n * (size_t)n);
    if (!m) {
        printf("matrix: out of memory\n");
        exit(1);
    }
    return m;
}

static void fill(double *m, int n) {
    for (int i = 0; i < n * n; i++) m[i] = next_random();
}

/* Rows of b are read in order: the inner loop has unit stride in b and c. */
static void multiply_plain(const double *a, const double *b, double *c, int n) {
    memset(c, 0, sizeof(double) * (size_t)n * (size_t)n);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) {
            double factor = a[i * n + k];
            for (int j = 0; j < n; j++) c[i * n + j] += factor * b[k * n + j];
        }
}

/* The same sums in the same order for every element, so that the result is equal bit for bit. */
static void multiply_tiled(const double *a, const double *b, double *c, int n) {
    memset(c, 0, sizeof(double) * (size_t)n * (size_t)n);
    for (int kk = 0; kk < n; kk += TILE)
        for (int jj = 0; jj < n; jj += TILE)
            for (int i = 0; i < n; i++) {
                int k_end = kk + TILE < n ? kk + TILE : n, j_end = jj + TILE < n ? jj + TILE : n;
                for (int k = kk; k < k_end; k++) {
                    double factor = a[i * n + k];
                    for (int j = jj; j < j_end; j++) c[i * n + j] += factor * b[k * n + j];
                }
            }
}

/* Dot products with four accumulators: the transposed second operand makes both strides one. */
static void multiply_transposed(const double *a, const double *bt, double *c, int n) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
            int k = 0;
            for (; k + 4 <= n; k += 4) {
                s0 += a[i * n + k] * bt[j * n + k];
                s1 += a[i * n + k + 1] * bt[j * n + k + 1];
                s2 += a[i * n + k + 2] * bt[j * n + k + 2];
                s3 += a[i * n + k + 3] * bt[j * n + k + 3];
            }
            for (; k < n; k++) s0 += a[i * n + k] * bt[j * n + k];
            c[i * n + j] = (s0 + s1) + (s2 + s3);
        }
}

static void transpose(const double *a, double *t, int n) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) t[j * n + i] = a[i * n + j];
}

static double frobenius(const double *m, int n) {
    double sum = 0;
    for (int i = 0; i < n * n; i++) sum += m[i] * m[i];
    return sqrt(sum);
}

/* Returns the sign of the permutation, 0 for a singular matrix; m becomes L below and U on and above the diagonal. */
static int decompose(double *m, int *permutation, int n) {
    int sign = 1;
    for (int i = 0; i < n; i++) permutation[i] = i;
    for (int k = 0; k < n; k++) {
        int pivot = k;
        for (int i = k + 1; i < n; i++)
            if (fabs(m[i * n + k]) > fabs(m[pivot * n + k])) pivot = i;
        if (m[pivot * n + k] == 0) return 0;
        if (pivot != k) {
            for (int j = 0; j < n; j++) {
                double t = m[k * n + j];
                m[k * n + j] = m[pivot * n + j];
                m[pivot * n + j] = t;
            }
            int t = permutation[k];
            permutation[k] = permutation[pivot];
            permutation[pivot] = t;
            sign = -sign;
        }
        double inverse = 1 / m[k * n + k];
        for (int i = k + 1; i < n; i++) {
            double factor = m[i * n + k] *= inverse;
            for (int j = k + 1; j < n; j++) m[i * n + j] -= factor * m[k * n + j];
        }
    }
    return sign;
}

static void solve(const double *lu, const int *permutation, const double *right, double *x, int n) {
    for (int i = 0; i < n; i++) {
        double sum = right[permutation[i]];
        for (int j = 0; j < i; j++) sum -= lu[i * n + j] * x[j];
        x[i] = sum;
    }
    for (int i = n - 1; i >= 0; i--) {
        double sum = x[i];
        for (int j = i + 1; j < n; j++) sum -= lu[i * n + j] * x[j];
        x[i] = sum / lu[i * n + i];
    }
}

typedef struct {
    double plain, transposed, difference, mantissa, exponent, residual, singular;
    int tiled_differs;
} Results;

/* Largest singular value of a, by iterating a'a on x. */
static double power_iteration(const double *a, double *x, double *work, int n) {
    double value = 0;
    for (int i = 0; i < n; i++) x[i] = 1;
    for (int step = 0; step < 20; step++) {
        double norm = 0;
        for (int i = 0; i < n; i++) {
            work[i] = 0;
            for (int j = 0; j < n; j++) work[i] += a[i * n + j] * x[j];
        }
        memset(x, 0, sizeof(double) * (size_t)n);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) x[j] += a[i * n + j] * work[i];
        for (int i = 0; i < n; i++) norm += x[i] * x[i];
        value = sqrt(norm);
        for (int i = 0; i < n; i++) x[i] /= value;
    }
    return sqrt(value);
}

static void one_round(Results *r, double *a, double *b, double *c, double *d, double *x, double *right, int *permutation, int n) {
    size_t size = sizeof(double) * (size_t)n * (size_t)n;
    fill(a, n);
    fill(b, n);
    multiply_plain(a, b, c, n);
    r->plain = frobenius(c, n);
    multiply_tiled(a, b, d, n);
    r->tiled_differs += memcmp(c, d, size) != 0;
    transpose(b, d, n);
    memcpy(b, d, size);
    multiply_transposed(a, b, d, n);
    r->transposed = frobenius(d, n);
    r->difference = 0;
    for (int i = 0; i < n * n; i++) r->difference = fabs(c[i] - d[i]) > r->difference ? fabs(c[i] - d[i]) : r->difference;

    memcpy(d, a, size);
    r->mantissa = decompose(d, permutation, n); /* the determinant: mantissas are multiplied, exponents are added */
    r->exponent = 0;
    for (int i = 0; i < n; i++) {
        int exponent;
        r->mantissa = frexp(r->mantissa * d[i * n + i], &exponent);
        r->exponent += exponent;
    }
    for (int i = 0; i < n; i++) right[i] = next_random();
    solve(d, permutation, right, x, n);
    r->residual = 0;
    for (int i = 0; i < n; i++) {
        double sum = -right[i];
        for (int j = 0; j < n; j++) sum += a[i * n + j] * x[j];
        r->residual = fabs(sum) > r->residual ? fabs(sum) : r->residual;
    }
    r->singular = power_iteration(a, x, right, n);
}

int main(int argc, char **argv) {
    int n = argc > 1 ? atoi(argv[1]) : 72, rounds = argc > 2 ? atoi(argv[2]) : 1;
    if (n < 2 || n > 2000 || rounds < 1) return 1;
    double *a = allocate(n), *b = allocate(n), *c = allocate(n), *d = allocate(n), *x = allocate(n), *right = allocate(n);
    int *permutation = malloc(sizeof(int) * (size_t)n);
    if (!permutation) return 1;
    Results r = {0};
    for (int round = 0; round < rounds; round++) one_round(&r, a, b, c, d, x, right, permutation, n);
    printf("plain      %.12g\n", r.plain);
    printf("tiled      differs %d times\n", r.tiled_differs);
    printf("transposed %.12g within %.3g\n", r.transposed, r.difference);
    printf("determinant %.12g * 2^%g\n", r.mantissa, r.exponent);
    printf("residual %.3g\n", r.residual);
    printf("singular value %.12g\n", r.singular);
    return 0;
}
