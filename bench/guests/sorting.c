/* Sorting records of 32 bytes: quicksort through a comparator pointer, heapsort with the comparison in line, merge sort of a
 * linked list, radix sort of keys. All four must agree.
 *
 * usage: sorting [records [rounds]]     prints checks and order-dependent sums over all rounds
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Record {
    uint64_t key;
    double weight;
    uint32_t id;
    char name[8];
    uint32_t next; /* index + 1 of the next record of a list, 0 at its end */
} Record;

typedef int (*Comparator)(const Record *, const Record *);

static uint64_t state = 88172645463325252u;

static uint64_t next_random(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void fill(Record *records, int count) {
    for (int i = 0; i < count; i++) {
        uint64_t r = next_random();
        records[i].key = r % ((uint64_t)count * 3); /* some keys twice, so that ties matter */
        records[i].weight = (double)(int64_t)next_random() / 4294967296.0;
        records[i].id = (uint32_t)i;
        for (int k = 0; k < 7; k++) records[i].name[k] = (char)('a' + (r >> (8 * k)) % 26);
        records[i].name[7] = 0;
        records[i].next = 0;
    }
}

static int by_key(const Record *a, const Record *b) {
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static int by_weight(const Record *a, const Record *b) {
    if (a->weight != b->weight) return a->weight < b->weight ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static int by_name(const Record *a, const Record *b) {
    int order = strcmp(a->name, b->name);
    return order ? order : a->id < b->id ? -1 : a->id > b->id;
}

static void exchange(Record *a, Record *b) {
    Record t = *a;
    *a = *b;
    *b = t;
}

static void quicksort(Record *records, int count, Comparator compare) {
    while (count > 12) {
        Record *low = records, *high = records + count - 1, *middle = records + count / 2;
        if (compare(middle, low) < 0) exchange(middle, low);
        if (compare(high, low) < 0) exchange(high, low);
        if (compare(high, middle) < 0) exchange(high, middle);
        Record pivot = *middle;
        int i = 0, j = count - 1;
        for (;;) {
            while (compare(&records[i], &pivot) < 0) i++;
            while (compare(&pivot, &records[j]) < 0) j--;
            if (i >= j) break;
            exchange(&records[i++], &records[j--]);
        }
        int left = j + 1;
        if (left < count - left) {
            quicksort(records, left, compare);
            records += left;
            count -= left;
        } else {
            quicksort(records + left, count - left, compare);
            count = left;
        }
    }
    for (int i = 1; i < count; i++) {
        Record moved = records[i];
        int j = i;
        while (j > 0 && compare(&moved, &records[j - 1]) < 0) records[j] = records[j - 1], j--;
        records[j] = moved;
    }
}

static void sift_down(Record *records, int at, int count) {
    Record moved = records[at];
    for (;;) {
        int child = 2 * at + 1;
        if (child >= count) break;
        if (child + 1 < count && by_key(&records[child], &records[child + 1]) < 0) child++;
        if (by_key(&records[child], &moved) <= 0) break;
        records[at] = records[child];
        at = child;
    }
    records[at] = moved;
}

static void heapsort_records(Record *records, int count) {
    for (int i = count / 2 - 1; i >= 0; i--) sift_down(records, i, count);
    for (int i = count - 1; i > 0; i--) {
        exchange(&records[0], &records[i]);
        sift_down(records, 0, i);
    }
}

static uint32_t merge(Record *pool, uint32_t a, uint32_t b) {
    uint32_t first = 0, *tail = &first;
    while (a && b) {
        uint32_t *taken = by_key(&pool[a - 1], &pool[b - 1]) <= 0 ? &a : &b;
        *tail = *taken;
        tail = &pool[*taken - 1].next;
        *taken = *tail;
    }
    *tail = a ? a : b;
    return first;
}

static uint32_t merge_sort(Record *pool, int count) {
    uint32_t runs[32] = {0}; /* runs[k] holds a sorted list of 2^k records, as the digits of a binary counter */
    for (int i = 0; i < count; i++) {
        uint32_t list = (uint32_t)i + 1;
        int k = 0;
        pool[i].next = 0;
        for (; runs[k]; k++) {
            list = merge(pool, runs[k], list);
            runs[k] = 0;
        }
        runs[k] = list;
    }
    uint32_t all = 0;
    for (int k = 0; k < 32; k++) all = runs[k] ? merge(pool, runs[k], all) : all;
    return all;
}

static void radix_sort(uint64_t *keys, uint64_t *scratch, int count) {
    for (int shift = 0; shift < 64; shift += 8) {
        uint32_t start[257] = {0};
        for (int i = 0; i < count; i++) start[((keys[i] >> shift) & 255) + 1]++;
        for (int b = 0; b < 256; b++) start[b + 1] += start[b];
        for (int i = 0; i < count; i++) scratch[start[(keys[i] >> shift) & 255]++] = keys[i];
        uint64_t *t = keys;
        keys = scratch;
        scratch = t;
    }
}

static uint64_t mixed(const Record *records, int count) {
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) sum = sum * 31 + (records[i].key ^ records[i].id ^ (uint64_t)(uint8_t)records[i].name[3] << 40);
    return sum;
}

static const struct { const char *label; Comparator compare; } orders[] = {
    {"key", by_key}, {"weight", by_weight}, {"name", by_name},
};

typedef struct {
    uint64_t quick[3], radix;
    uint32_t wrong, heap_differs, merge_differs;
} Totals;

static void one_round(Totals *totals, Record *original, Record *work, uint64_t *keys, int count) {
    size_t size = sizeof(Record) * (size_t)count;
    uint64_t expected = 0, sum = 0;
    fill(original, count);
    for (int i = 0; i < 3; i++) {
        memcpy(work, original, size);
        quicksort(work, count, orders[i].compare);
        for (int k = 1; k < count; k++) totals->wrong += orders[i].compare(&work[k - 1], &work[k]) >= 0;
        totals->quick[i] = totals->quick[i] * 31 + mixed(work, count);
        if (i == 0) expected = mixed(work, count);
    }
    memcpy(work, original, size);
    heapsort_records(work, count);
    totals->heap_differs += mixed(work, count) != expected;
    memcpy(work, original, size);
    for (uint32_t r = merge_sort(work, count); r; r = work[r - 1].next)
        sum = sum * 31 + (work[r - 1].key ^ work[r - 1].id ^ (uint64_t)(uint8_t)work[r - 1].name[3] << 40);
    totals->merge_differs += sum != expected;
    for (int i = 0; i < count; i++) keys[i] = original[i].key * 0x9e3779b97f4a7c15u;
    radix_sort(keys, keys + count, count);
    for (int i = 0; i < count; i++) {
        totals->wrong += i > 0 && keys[i - 1] > keys[i];
        totals->radix = totals->radix * 31 + keys[i];
    }
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 6000, rounds = argc > 2 ? atoi(argv[2]) : 1;
    if (count < 1 || count > 20000000 || rounds < 1) return 1;
    Record *original = malloc(sizeof(Record) * (size_t)count), *work = malloc(sizeof(Record) * (size_t)count);
    uint64_t *keys = malloc(16 * (size_t)count);
    if (!original || !work || !keys) return 1;
    Totals totals = {0};
    for (int round = 0; round < rounds; round++) one_round(&totals, original, work, keys, count);
    for (int i = 0; i < 3; i++) printf("quicksort by %-6s %016llx\n", orders[i].label, (unsigned long long)totals.quick[i]);
    printf("radix sort of keys  %016llx\n", (unsigned long long)totals.radix);
    printf("out of order %u, heapsort differs %u, merge sort differs %u\n", (unsigned)totals.wrong,
           (unsigned)totals.heap_differs, (unsigned)totals.merge_differs);
    return 0;
}
