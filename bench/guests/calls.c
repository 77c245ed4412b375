/* Calls: Fibonacci, Ackermann, Takeuchi, mutual recursion, towers of Hanoi, calls through a table of function pointers with
 * several signatures, and a call with many arguments.
 *
 * usage: calls [scale]     prints each result; one more multiplies the work by about 1.6
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t fibonacci(uint32_t n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

static uint32_t ackermann(uint32_t m, uint32_t n) {
    if (m == 0) return n + 1;
    return ackermann(m - 1, n == 0 ? 1 : ackermann(m, n - 1));
}

static int takeuchi(int x, int y, int z) {
    return y < x ? takeuchi(takeuchi(x - 1, y, z), takeuchi(y - 1, z, x), takeuchi(z - 1, x, y)) : z;
}

static uint64_t male(uint32_t n);
static uint64_t female(uint32_t n) { return n == 0 ? 1 : n - male((uint32_t)female(n - 1)); }
static uint64_t male(uint32_t n) { return n == 0 ? 0 : n - female((uint32_t)male(n - 1)); }

static uint32_t pegs[3];

static uint32_t hanoi(int disks, int from, int to) {
    if (disks == 0) return 0;
    uint32_t moves = hanoi(disks - 1, from, 3 - from - to);
    pegs[from] ^= 1u << disks;
    pegs[to] ^= 1u << disks;
    return moves + 1 + hanoi(disks - 1, 3 - from - to, to);
}

/* ---- through pointers ---- */

typedef int64_t (*Integer)(int64_t, int64_t);
typedef double (*Real)(double, double);

static int64_t add(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
static int64_t twist(int64_t a, int64_t b) { return a ^ (int64_t)((uint64_t)b << 3 | (uint64_t)b >> 61); }
static int64_t multiply(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)(b | 1)); }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static double mean(double a, double b) { return (a + b) / 2; }
static double damp(double a, double b) { return a * 0.75 - b * 0.125; }
static double span(double a, double b) { return a > b ? a - b : b - a; }

static Integer integers[] = {add, twist, multiply, smaller};
static Real reals[] = {mean, damp, span};

static void indirect(int rounds) {
    int64_t a = 1, b = 0x1234567;
    double x = 1.5, y = -0.25;
    uint32_t pick = 99;
    for (int i = 0; i < rounds; i++) {
        pick = pick * 1664525u + 1013904223u;
        int64_t r = integers[pick >> 30](a, b);
        double z = reals[(pick >> 20) % 3](x, y);
        a = b;
        b = (int64_t)((uint64_t)r + (uint64_t)i);
        x = y;
        y = z + 1;
    }
    printf("indirect %016llx %.9f\n", (unsigned long long)b, y);
}

/* noinline through a volatile pointer: otherwise the ten arguments never travel */
static int64_t many(int32_t a, int64_t b, double c, float d, int32_t e, int64_t f, double g, int32_t h, int64_t i, double j) {
    if (a == 0) return b + f + i + (int64_t)(c + d + g + j) + e + h;
    return b - e;
}

static int64_t (*volatile many_pointer)(int32_t, int64_t, double, float, int32_t, int64_t, double, int32_t, int64_t, double) = many;

int main(int argc, char **argv) {
    int scale = argc > 1 ? atoi(argv[1]) : 0;
    if (scale < 0 || scale > 30) return 1;
    uint32_t n = 22 + (uint32_t)scale;
    int rounds = 20000;
    for (int i = 0; i < scale; i++) rounds = rounds * 8 / 5;
    printf("fibonacci(%u) %u\n", (unsigned)n, (unsigned)fibonacci(n));
    /* Three more quadruple the work; at 8 the recursion is 2000 deep, and from there on it is repeated instead. */
    uint32_t m = 5 + (uint32_t)scale / 3, sum3 = 0, repeats = 1;
    for (; m > 8; m--) repeats *= 4;
    for (uint32_t i = 0; i < repeats; i++) sum3 += ackermann(3, m - (i & 1));
    printf("ackermann(3, %u) %u times: %u\n", (unsigned)m, (unsigned)repeats, (unsigned)sum3);
    int t = 10 + scale * 3 / 5;
    printf("takeuchi(%d, %d, 0) %d\n", t, t / 2, takeuchi(t, t / 2, 0));
    uint32_t last = 20 + (uint32_t)scale * 2;
    printf("hofstadter %llu %llu\n", (unsigned long long)female(last), (unsigned long long)male(last));
    int disks = 12 + scale * 2 / 3;
    uint32_t moves;
    pegs[0] = (1u << (disks + 1)) - 2;
    moves = hanoi(disks, 0, 2);
    printf("hanoi(%d) %u moves, pegs %x %x %x\n", disks, (unsigned)moves, (unsigned)pegs[0], (unsigned)pegs[1], (unsigned)pegs[2]);
    indirect(rounds);
    int64_t sum = 0;
    for (int i = 0; i < rounds; i++) sum += many_pointer(i & 1, sum, i * 0.5, 2.0f, i, -sum, 3.25, 7, i, 1.5);
    printf("many arguments %lld\n", (long long)sum);
    return 0;
}
