/* A hash map with chains from malloc: strings to counts, growing, with deletions, and a least-recently-used cache on top of a
 * doubly linked list. Dominated by pointers, malloc and free.
 *
 * usage: hashmap [operations [rounds]]     prints counts and order-dependent sums of the last round
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Node {
    struct Node *next;             /* in its chain */
    struct Node *older, *newer;    /* in order of use */
    uint32_t hash;
    uint32_t count;
    char key[];
} Node;

typedef struct {
    Node **buckets;
    uint32_t mask, size, limit;    /* at `limit` nodes the oldest is dropped; 0: no limit */
    Node *oldest, *newest;
    uint64_t probes, dropped, grown;
} Map;

static uint64_t state = 0x2545f4914f6cdd1du;

static uint32_t next_random(void) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1du) >> 32);
}

static void *allocate(size_t size) {
    void *p = calloc(1, size);
    if (!p) {
        printf("hashmap: out of memory\n");
        exit(1);
    }
    return p;
}

static uint32_t hash_of(const char *key) {
    uint32_t h = 2166136261u;
    for (; *key; key++) h = (h ^ (uint8_t)*key) * 16777619u;
    return h ^ h >> 15;
}

static void open_map(Map *m, uint32_t limit) {
    memset(m, 0, sizeof *m);
    m->mask = 15;
    m->limit = limit;
    m->buckets = allocate(sizeof(Node *) * 16);
}

static void grow(Map *m) {
    uint32_t mask = m->mask * 2 + 1;
    Node **buckets = allocate(sizeof(Node *) * (mask + 1));
    for (uint32_t b = 0; b <= m->mask; b++)
        for (Node *n = m->buckets[b]; n;) {
            Node *next = n->next;
            n->next = buckets[n->hash & mask];
            buckets[n->hash & mask] = n;
            n = next;
        }
    free(m->buckets);
    m->buckets = buckets;
    m->mask = mask;
    m->grown++;
}

static void unlink_use(Map *m, Node *n) {
    if (n->older) n->older->newer = n->newer;
    else m->oldest = n->newer;
    if (n->newer) n->newer->older = n->older;
    else m->newest = n->older;
}

static void link_newest(Map *m, Node *n) {
    n->older = m->newest;
    n->newer = NULL;
    if (m->newest) m->newest->newer = n;
    else m->oldest = n;
    m->newest = n;
}

static Node **find(Map *m, const char *key, uint32_t hash) {
    Node **place = &m->buckets[hash & m->mask];
    for (; *place; place = &(*place)->next) {
        m->probes++;
        if ((*place)->hash == hash && strcmp((*place)->key, key) == 0) break;
    }
    return place;
}

static int erase(Map *m, const char *key) {
    Node **place = find(m, key, hash_of(key)), *n = *place;
    if (!n) return 0;
    *place = n->next;
    unlink_use(m, n);
    free(n);
    m->size--;
    return 1;
}

static uint32_t use(Map *m, const char *key) {
    uint32_t hash = hash_of(key);
    Node **place = find(m, key, hash), *n = *place;
    if (n) {
        unlink_use(m, n);
    } else {
        if (m->size > m->mask) {
            grow(m);
            place = find(m, key, hash);
        }
        size_t length = strlen(key);
        n = allocate(sizeof *n + length + 1);
        memcpy(n->key, key, length + 1);
        n->hash = hash;
        *place = n;
        m->size++;
    }
    link_newest(m, n);
    n->count++;
    uint32_t count = n->count;
    if (m->limit && m->size > m->limit) {
        char victim[64];
        strcpy(victim, m->oldest->key);
        erase(m, victim);
        m->dropped++;
    }
    return count;
}

static void make_key(char *key, uint32_t range) {
    static const char *const parts[] = {"ba", "ko", "mi", "ru", "ten", "sal", "vor", "que", "li", "zed", "pha", "no", "gri", "tum", "we", "xi"};
    uint32_t r = next_random();
    r = (uint32_t)((uint64_t)(r & 0xffff) * (r >> 16) % range); /* uneven: some keys far more often */
    key[0] = 0;
    int at = 0;
    do {
        const char *part = parts[r & 15];
        while (*part) key[at++] = *part++;
        r >>= 4;
    } while (r);
    key[at] = 0;
}

static void report(const char *label, Map *m) {
    uint64_t sum = 0, order = 0;
    for (Node *n = m->oldest; n; n = n->newer) {
        sum += n->count;
        order = order * 1099511628211u + (n->hash ^ n->count);
    }
    printf("%-8s %u keys, %llu uses, %llu probes, %llu dropped, grown %llu, order %016llx\n", label, (unsigned)m->size,
           (unsigned long long)sum, (unsigned long long)m->probes, (unsigned long long)m->dropped, (unsigned long long)m->grown,
           (unsigned long long)order);
}

static void close_map(Map *m) {
    for (Node *n = m->oldest; n;) {
        Node *next = n->newer;
        free(n);
        n = next;
    }
    free(m->buckets);
}

int main(int argc, char **argv) {
    int operations = argc > 1 ? atoi(argv[1]) : 20000, rounds = argc > 2 ? atoi(argv[2]) : 1;
    if (operations < 1 || rounds < 1) return 1;
    uint32_t erased = 0, busiest = 0, range = (uint32_t)operations / 2 + 16;
    for (int round = 0; round < rounds; round++) {
        Map counts, cache;
        char key[64];
        open_map(&counts, 0);
        open_map(&cache, (uint32_t)operations / 16 + 1);
        for (int i = 0; i < operations; i++) {
            make_key(key, range);
            uint32_t count = use(&counts, key);
            if (count > busiest) busiest = count;
            use(&cache, key);
            if (i % 5 == 4) {
                make_key(key, range);
                erased += (uint32_t)erase(&counts, key);
            }
        }
        if (round == rounds - 1) {
            printf("erased %u, busiest key %u times\n", (unsigned)erased, (unsigned)busiest);
            report("counts", &counts);
            report("cache", &cache);
        }
        close_map(&counts);
        close_map(&cache);
    }
    return 0;
}
