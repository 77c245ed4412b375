/* Floating point: the outer planets as point masses under gravity (velocity Verlet), and a spring lattice in f32.
 * Division, square root and conversions in both widths.
 *
 * usage: nbody [steps]     prints energies, momentum and positions
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { BODIES = 6, SIDE = 24 };

typedef struct {
    double x, y, z, vx, vy, vz, ax, ay, az, mass;
} Body;

/* Rounded positions and velocities in astronomical units and years; masses in solar masses. */
static Body bodies[BODIES] = {
    {.mass = 1.0},
    {.x = 4.84, .y = -1.16, .z = -0.10, .vx = 0.606, .vy = 2.812, .vz = -0.0252, .mass = 9.55e-4},
    {.x = 8.34, .y = 4.12, .z = -0.40, .vx = -1.011, .vy = 1.825, .vz = 0.0084, .mass = 2.86e-4},
    {.x = 12.9, .y = -15.1, .z = -0.22, .vx = 1.083, .vy = 0.869, .vz = -0.0108, .mass = 4.37e-5},
    {.x = 15.4, .y = -25.9, .z = 0.18, .vx = 0.979, .vy = 0.594, .vz = -0.0347, .mass = 5.15e-5},
    {.x = -9.9, .y = -28.0, .z = 5.8, .vx = 1.12, .vy = -0.55, .vz = -0.26, .mass = 6.6e-9},
};

static const double gravity = 39.47841760435743; /* 4 pi^2 */

static void accelerate(void) {
    for (int i = 0; i < BODIES; i++) bodies[i].ax = bodies[i].ay = bodies[i].az = 0;
    for (int i = 0; i < BODIES; i++)
        for (int j = i + 1; j < BODIES; j++) {
            double dx = bodies[j].x - bodies[i].x, dy = bodies[j].y - bodies[i].y, dz = bodies[j].z - bodies[i].z;
            double square = dx * dx + dy * dy + dz * dz;
            double factor = gravity / (square * sqrt(square));
            bodies[i].ax += dx * factor * bodies[j].mass;
            bodies[i].ay += dy * factor * bodies[j].mass;
            bodies[i].az += dz * factor * bodies[j].mass;
            bodies[j].ax -= dx * factor * bodies[i].mass;
            bodies[j].ay -= dy * factor * bodies[i].mass;
            bodies[j].az -= dz * factor * bodies[i].mass;
        }
}

static void advance(double dt) {
    for (int i = 0; i < BODIES; i++) {
        Body *b = &bodies[i];
        b->vx += b->ax * dt / 2;
        b->vy += b->ay * dt / 2;
        b->vz += b->az * dt / 2;
        b->x += b->vx * dt;
        b->y += b->vy * dt;
        b->z += b->vz * dt;
    }
    accelerate();
    for (int i = 0; i < BODIES; i++) {
        Body *b = &bodies[i];
        b->vx += b->ax * dt / 2;
        b->vy += b->ay * dt / 2;
        b->vz += b->az * dt / 2;
    }
}

static double energy(void) {
    double sum = 0;
    for (int i = 0; i < BODIES; i++) {
        const Body *b = &bodies[i];
        sum += b->mass * (b->vx * b->vx + b->vy * b->vy + b->vz * b->vz) / 2;
        for (int j = i + 1; j < BODIES; j++) {
            double dx = bodies[j].x - b->x, dy = bodies[j].y - b->y, dz = bodies[j].z - b->z;
            sum -= gravity * b->mass * bodies[j].mass / sqrt(dx * dx + dy * dy + dz * dz);
        }
    }
    return sum;
}

/* ---- a membrane of points joined by springs, in f32 ---- */

static float height[SIDE][SIDE], speed[SIDE][SIDE];

static float membrane(int steps) {
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) height[i][j] = (float)((i * 7 + j * 13) % 11) / 11.0f - 0.5f, speed[i][j] = 0;
    for (int step = 0; step < steps; step++) {
        for (int i = 1; i < SIDE - 1; i++)
            for (int j = 1; j < SIDE - 1; j++) {
                float pull = height[i - 1][j] + height[i + 1][j] + height[i][j - 1] + height[i][j + 1] - 4.0f * height[i][j];
                speed[i][j] = (speed[i][j] + 0.1f * pull) * 0.9995f;
            }
        for (int i = 1; i < SIDE - 1; i++)
            for (int j = 1; j < SIDE - 1; j++) height[i][j] += 0.1f * speed[i][j];
    }
    float sum = 0;
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) sum += sqrtf(height[i][j] * height[i][j] + speed[i][j] * speed[i][j]);
    return sum;
}

int main(int argc, char **argv) {
    int steps = argc > 1 ? atoi(argv[1]) : 4000;
    if (steps < 0) return 1;
    double px = 0, py = 0, pz = 0;
    for (int i = 0; i < BODIES; i++) px += bodies[i].vx * bodies[i].mass, py += bodies[i].vy * bodies[i].mass, pz += bodies[i].vz * bodies[i].mass;
    bodies[0].vx = -px;
    bodies[0].vy = -py;
    bodies[0].vz = -pz;
    accelerate();
    printf("energy %.12f\n", energy());
    for (int quarter = 0; quarter < 4; quarter++) {
        for (int i = 0; i < steps / 4; i++) advance(0.01);
        printf("energy %.12f jupiter %.9f %.9f %.9f\n", energy(), bodies[1].x, bodies[1].y, bodies[1].z);
    }
    px = py = pz = 0;
    for (int i = 0; i < BODIES; i++) px += bodies[i].vx * bodies[i].mass, py += bodies[i].vy * bodies[i].mass, pz += bodies[i].vz * bodies[i].mass;
    printf("momentum below 1e-12: %s\n", fabs(px) + fabs(py) + fabs(pz) < 1e-12 ? "yes" : "no");
    printf("membrane %.6f\n", (double)membrane(steps / 16));
    return 0;
}
