/* Escape times of the Mandelbrot set, four points in f32 and two in f64 at a time: comparisons, masks and counters, and
 * the test whether any lane goes on.
 *
 * usage: vector_mandelbrot [width]
 */
#include "vectors.h"
#include <stdio.h>
#include <stdlib.h>

enum { LIMIT = 256 };

static uint64_t checksum = 0;

static void count(uint32_t iterations) { checksum = checksum * 31 + iterations; }

static void singles(int width) {
    float step = 3.0f / (float)width;
    for (int y = 0; y < width; y++)
        for (int x = 0; x < width; x += 4) {
            f32x4 cr = {(float)x, (float)(x + 1), (float)(x + 2), (float)(x + 3)};
            cr = cr * step - 2.0f;
            f32x4 ci = (f32x4){0, 0, 0, 0} + ((float)y * step - 1.5f);
            f32x4 r = cr, i = ci;
            i32x4 counts = {0, 0, 0, 0};
            for (int k = 0; k < LIMIT; k++) {
                f32x4 rr = r * r, ii = i * i;
                i32x4 inside = rr + ii < 4.0f;
                if (!bitmask32(inside)) break;
                counts -= inside;
                i = (r + r) * i + ci;
                r = rr - ii + cr;
            }
            for (int lane = 0; lane < 4; lane++) count((uint32_t)counts[lane]);
        }
}

static void doubles(int width) {
    double step = 3.0 / width;
    for (int y = 0; y < width; y++)
        for (int x = 0; x < width; x += 2) {
            f64x2 cr = {(double)x, (double)(x + 1)};
            cr = cr * step - 2.0;
            f64x2 ci = (f64x2){0, 0} + (y * step - 1.5);
            f64x2 r = cr, i = ci;
            i64x2 counts = {0, 0};
            for (int k = 0; k < LIMIT; k++) {
                f64x2 rr = r * r, ii = i * i;
                i64x2 inside = rr + ii < 4.0;
                if (!bitmask64(inside)) break;
                counts -= inside;
                i = (r + r) * i + ci;
                r = rr - ii + cr;
            }
            count((uint32_t)counts[0]);
            count((uint32_t)counts[1]);
        }
}

int main(int argc, char **argv) {
    int width = argc > 1 ? atoi(argv[1]) : 128;
    if (width < 4 || width > 8192) {
        printf("usage: vector_mandelbrot [width]\n");
        return 1;
    }
    width &= ~3;
    singles(width);
    printf("f32 %d: %016llx\n", width, (unsigned long long)checksum);
    doubles(width);
    printf("f64 %d: %016llx\n", width, (unsigned long long)checksum);
    printf("done\n");
    return 0;
}
