/* The Mandelbrot set in f64 and a Julia set in f32 with smooth shading from integer iteration counts; a picture in letters.
 * Tight floating-point loops whose branches depend on the data.
 *
 * usage: mandelbrot [width]     prints a picture 64 letters wide and the sums over all points computed
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { LIMIT = 400, COLUMNS = 64, ROWS = 24 };

static int escape_time(double cx, double cy, double *last) {
    double x = 0, y = 0, xx = 0, yy = 0;
    int n = 0;
    while (n < LIMIT && xx + yy <= 16.0) {
        y = 2 * x * y + cy;
        x = xx - yy + cx;
        xx = x * x;
        yy = y * y;
        n++;
    }
    *last = xx + yy;
    return n;
}

static int julia_time(float x, float y) {
    int n = 0;
    while (n < LIMIT && x * x + y * y <= 4.0f) {
        float t = x * x - y * y - 0.7269f;
        y = 2 * x * y + 0.1889f;
        x = t;
        n++;
    }
    return n;
}

int main(int argc, char **argv) {
    static const char shades[] = " .,:;i1tfLCG08@#";
    int width = argc > 1 ? atoi(argv[1]) : 96;
    if (width < 1 || width > 20000) return 1;
    double last;
    for (int row = 0; row < ROWS; row++) {
        char line[COLUMNS + 1];
        for (int column = 0; column < COLUMNS; column++) {
            int n = escape_time(-2.2 + 3.2 * column / COLUMNS, -1.2 + 2.4 * row / ROWS, &last);
            line[column] = n == LIMIT ? shades[15] : shades[n % 15];
        }
        line[COLUMNS] = 0;
        printf("%s\n", line);
    }
    int height = width * 3 / 4;
    uint64_t total = 0, julia = 0, inside = 0, mixed = 0;
    double sizes = 0;
    for (int row = 0; row < height; row++) {
        double cy = -1.2 + 2.4 * row / height;
        for (int column = 0; column < width; column++) {
            double cx = -2.2 + 3.2 * column / width;
            int n = escape_time(cx, cy, &last);
            total += (uint64_t)n;
            inside += n == LIMIT;
            mixed = mixed * 31 + (uint64_t)n;
            if (n < LIMIT) sizes += last;
            julia += (uint64_t)julia_time((float)cx, (float)cy);
        }
    }
    printf("points %d inside %llu iterations %llu julia %llu mixed %016llx sizes %.9g\n", width * height, (unsigned long long)inside,
           (unsigned long long)total, (unsigned long long)julia, (unsigned long long)mixed, sizes);
    return 0;
}
