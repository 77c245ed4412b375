/* Compressor: LZ77 with hash chains and lazy matching, then canonical Huffman codes limited to 15 bits, block by block,
 * and the decoder for it. The input is generated text; every block is decompressed again and compared.
 *
 * usage: compressor [kibibytes [rounds]]     prints, of the last round, sizes, checksums and the number of each symbol kind
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 65536,           /* input bytes that share one pair of Huffman codes */
    WINDOW = 32768,          /* farthest match */
    MIN_MATCH = 4,
    MAX_MATCH = 258,
    HASH_BITS = 15,
    CHAIN_LIMIT = 48,        /* candidates looked at for one position */
    END = 256,               /* end of block */
    LENGTH_CODES = 16,       /* literal alphabet: 256 bytes, END, one symbol a power-of-two bucket of lengths */
    LITERALS = 257 + LENGTH_CODES,
    DISTANCES = 16,          /* one symbol a power-of-two bucket of distances */
    MAX_BITS = 15
};

static void fail(const char *what) {
    printf("compressor: %s\n", what);
    exit(1);
}

/* ---- input: sentences from a small vocabulary, with numbers now and then ---- */

static uint32_t seed = 2463534242u;

static uint32_t next_random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static const char *const vocabulary[] = {
    "memory", "table", "global", "function", "module", "instance", "store", "engine", "trap", "stack",
    "value", "block", "loop", "branch", "call", "return", "import", "export", "limit", "page",
    "the", "a", "of", "and", "to", "in", "is", "that", "with", "every", "never", "once",
    "validates", "decodes", "maps", "grows", "reads", "writes", "links", "returns", "unwinds", "signals",
};

static void generate(uint8_t *out, size_t size) {
    size_t at = 0;
    unsigned words = sizeof vocabulary / sizeof *vocabulary;
    while (at < size) {
        char word[32];
        uint32_t r = next_random();
        if (r % 23 == 0) {
            snprintf(word, sizeof word, "0x%08x ", (unsigned)next_random());
        } else {
            uint32_t skewed = (r >> 8) % words;
            skewed = skewed * ((r >> 20) % words) / words; /* small indices more often, as in real text */
            snprintf(word, sizeof word, "%s%s", vocabulary[skewed], r % 11 == 0 ? ".\n" : r % 7 == 0 ? ", " : " ");
        }
        size_t length = strlen(word);
        if (length > size - at) length = size - at;
        memcpy(out + at, word, length);
        at += length;
    }
}

/* ---- bit streams ---- */

typedef struct {
    uint8_t *bytes;
    size_t size, capacity;
    uint64_t pending;
    int pending_bits;
} Writer;

static void put_bits(Writer *w, uint32_t value, int bits) {
    w->pending |= (uint64_t)value << w->pending_bits;
    w->pending_bits += bits;
    while (w->pending_bits >= 8) {
        if (w->size == w->capacity) fail("output buffer is full");
        w->bytes[w->size++] = (uint8_t)w->pending;
        w->pending >>= 8;
        w->pending_bits -= 8;
    }
}

static void flush_bits(Writer *w) {
    if (w->pending_bits > 0) put_bits(w, 0, 8 - w->pending_bits);
}

typedef struct {
    const uint8_t *bytes;
    size_t size, at;
    uint64_t pending;
    int pending_bits;
} Reader;

static void refill(Reader *r) {
    while (r->pending_bits <= 48) {
        uint64_t byte = r->at < r->size ? r->bytes[r->at] : 0;
        r->at++;
        r->pending |= byte << r->pending_bits;
        r->pending_bits += 8;
    }
}

static uint32_t take_bits(Reader *r, int bits) {
    if (bits == 0) return 0;
    refill(r);
    uint32_t value = (uint32_t)(r->pending & ((1u << bits) - 1));
    r->pending >>= bits;
    r->pending_bits -= bits;
    return value;
}

static void align_reader(Reader *r) {
    int drop = r->pending_bits & 7;
    r->pending >>= drop;
    r->pending_bits -= drop;
}

/* ---- Huffman codes ---- */

typedef struct {
    uint8_t length[LITERALS];
    uint16_t code[LITERALS]; /* bit-reversed, so that the first bit is sent first */
} Code;

static uint16_t reverse(uint16_t value, int bits) {
    uint16_t result = 0;
    for (int i = 0; i < bits; i++) result |= (uint16_t)(((value >> i) & 1) << (bits - 1 - i));
    return result;
}

static void assign_codes(Code *code, int symbols) {
    uint16_t count[MAX_BITS + 1] = {0}, next[MAX_BITS + 2] = {0};
    for (int s = 0; s < symbols; s++) count[code->length[s]]++;
    count[0] = 0;
    for (int b = 1; b <= MAX_BITS; b++) next[b + 1] = (uint16_t)((next[b] + count[b]) << 1);
    for (int s = 0; s < symbols; s++) {
        int length = code->length[s];
        if (length) code->code[s] = reverse(next[length]++, length);
    }
}

/* Lengths by merging the two lightest nodes; when the tree is too deep the weights are flattened and it starts again. */
static void build_code(Code *code, const uint32_t *frequency, int symbols) {
    static uint32_t weight[2 * LITERALS];
    static int16_t parent[2 * LITERALS];
    static int16_t heap[2 * LITERALS];
    for (int flatten = 0;; flatten++) {
        int nodes = symbols, size = 0, deepest = 0;
        for (int s = 0; s < symbols; s++) {
            code->length[s] = 0;
            if (!frequency[s]) continue;
            weight[s] = (frequency[s] >> flatten) + 1;
            int i = size++;
            while (i > 0 && weight[heap[(i - 1) / 2]] > weight[s]) heap[i] = heap[(i - 1) / 2], i = (i - 1) / 2;
            heap[i] = (int16_t)s;
        }
        if (size == 1) {
            code->length[heap[0]] = 1;
            break;
        }
        while (size > 1) {
            int16_t lightest[2];
            for (int k = 0; k < 2; k++) {
                lightest[k] = heap[0];
                int16_t moved = heap[--size];
                int i = 0;
                for (;;) {
                    int child = 2 * i + 1;
                    if (child >= size) break;
                    if (child + 1 < size && weight[heap[child + 1]] < weight[heap[child]]) child++;
                    if (weight[heap[child]] >= weight[moved]) break;
                    heap[i] = heap[child];
                    i = child;
                }
                heap[i] = moved;
            }
            weight[nodes] = weight[lightest[0]] + weight[lightest[1]];
            parent[lightest[0]] = parent[lightest[1]] = (int16_t)nodes;
            int i = size++;
            while (i > 0 && weight[heap[(i - 1) / 2]] > weight[nodes]) heap[i] = heap[(i - 1) / 2], i = (i - 1) / 2;
            heap[i] = (int16_t)nodes++;
        }
        for (int s = 0; s < symbols; s++) {
            if (!frequency[s]) continue;
            int depth = 0;
            for (int n = s; n != nodes - 1; n = parent[n]) depth++;
            code->length[s] = (uint8_t)depth;
            if (depth > deepest) deepest = depth;
        }
        if (deepest <= MAX_BITS) break;
    }
    assign_codes(code, symbols);
}

/* ---- LZ77 ---- */

typedef struct {
    uint16_t length;   /* 0: a literal, whose byte is `distance` */
    uint16_t distance;
} Token;

static int32_t head[1 << HASH_BITS];
static int32_t chain[WINDOW];
static Token tokens[BLOCK + 1];
static uint64_t literal_count, match_count;

static uint32_t hash_at(const uint8_t *p) {
    uint32_t word;
    memcpy(&word, p, 4);
    return (word * 2654435761u) >> (32 - HASH_BITS);
}

static int longest_match(const uint8_t *data, int at, int end, int *distance) {
    int best = MIN_MATCH - 1, limit = end - at < MAX_MATCH ? end - at : MAX_MATCH, tries = CHAIN_LIMIT;
    if (limit < MIN_MATCH) return 0;
    for (int candidate = head[hash_at(data + at)]; candidate >= 0 && at - candidate < WINDOW && tries-- > 0;
         candidate = chain[candidate % WINDOW]) {
        if (data[candidate + best] != data[at + best]) continue;
        int length = 0;
        while (length < limit && data[candidate + length] == data[at + length]) length++;
        if (length > best) {
            best = length;
            *distance = at - candidate;
            if (length == limit) break;
        }
    }
    return best >= MIN_MATCH ? best : 0;
}

static void remember(const uint8_t *data, int at, int size) {
    if (at + 4 > size) return;
    uint32_t hash = hash_at(data + at);
    chain[at % WINDOW] = head[hash];
    head[hash] = at;
}

static int bucket(uint32_t value) { /* 0 for 0 and 1, then one bucket a power of two */
    return value < 2 ? 0 : 31 - __builtin_clz(value);
}

static int find_tokens(const uint8_t *data, int start, int end, int size) {
    int count = 0, at = start;
    while (at < end) {
        int distance = 0, length = longest_match(data, at, end, &distance);
        remember(data, at, size);
        if (length && at + 1 < end && length < 32) { /* lazy: would the next position match longer? */
            int next_distance = 0, next_length = longest_match(data, at + 1, end, &next_distance);
            if (next_length > length) length = 0;
        }
        if (length) {
            tokens[count++] = (Token){(uint16_t)length, (uint16_t)distance};
            for (int i = 1; i < length; i++) remember(data, at + i, size);
            at += length;
            match_count++;
        } else {
            tokens[count++] = (Token){0, data[at]};
            at++;
            literal_count++;
        }
    }
    return count;
}

static void compress_block(Writer *w, const uint8_t *data, int start, int end, int size) {
    static uint32_t literal_frequency[LITERALS], distance_frequency[DISTANCES];
    static Code literals, distances;
    int count = find_tokens(data, start, end, size);
    memset(literal_frequency, 0, sizeof literal_frequency);
    memset(distance_frequency, 0, sizeof distance_frequency);
    literal_frequency[END] = 1;
    for (int i = 0; i < count; i++) {
        if (tokens[i].length) {
            literal_frequency[257 + bucket(tokens[i].length)]++;
            distance_frequency[bucket(tokens[i].distance)]++;
        } else {
            literal_frequency[tokens[i].distance]++;
        }
    }
    build_code(&literals, literal_frequency, LITERALS);
    build_code(&distances, distance_frequency, DISTANCES);
    put_bits(w, (uint32_t)(end - start), 17);
    for (int s = 0; s < LITERALS; s++) put_bits(w, literals.length[s], 4);
    for (int s = 0; s < DISTANCES; s++) put_bits(w, distances.length[s], 4);
    for (int i = 0; i < count; i++) {
        if (!tokens[i].length) {
            put_bits(w, literals.code[tokens[i].distance], literals.length[tokens[i].distance]);
            continue;
        }
        int b = bucket(tokens[i].length);
        put_bits(w, literals.code[257 + b], literals.length[257 + b]);
        put_bits(w, tokens[i].length & ((1u << b) - 1), b);
        b = bucket(tokens[i].distance);
        put_bits(w, distances.code[b], distances.length[b]);
        put_bits(w, tokens[i].distance & ((1u << b) - 1), b);
    }
    put_bits(w, literals.code[END], literals.length[END]);
    flush_bits(w);
}

/* ---- decoder: one table look-up a symbol ---- */

typedef struct {
    uint16_t entry[1 << MAX_BITS]; /* symbol << 4 | length */
} Decoder;

static void build_decoder(Decoder *decoder, const Code *code, int symbols) {
    memset(decoder->entry, 0, sizeof decoder->entry);
    for (int s = 0; s < symbols; s++) {
        int length = code->length[s];
        if (!length) continue;
        for (uint32_t i = code->code[s]; i < 1u << MAX_BITS; i += 1u << length)
            decoder->entry[i] = (uint16_t)(s << 4 | length);
    }
}

static int take_symbol(Reader *r, const Decoder *decoder) {
    refill(r);
    uint16_t entry = decoder->entry[r->pending & ((1u << MAX_BITS) - 1)];
    int length = entry & 15;
    if (!length) fail("invalid code in the compressed stream");
    r->pending >>= length;
    r->pending_bits -= length;
    return entry >> 4;
}

static int decompress_block(Reader *r, uint8_t *out, int at) {
    static Code literals, distances;
    static Decoder literal_decoder, distance_decoder;
    int start = at, expected = (int)take_bits(r, 17);
    for (int s = 0; s < LITERALS; s++) literals.length[s] = (uint8_t)take_bits(r, 4);
    for (int s = 0; s < DISTANCES; s++) distances.length[s] = (uint8_t)take_bits(r, 4);
    assign_codes(&literals, LITERALS);
    assign_codes(&distances, DISTANCES);
    build_decoder(&literal_decoder, &literals, LITERALS);
    build_decoder(&distance_decoder, &distances, DISTANCES);
    for (;;) {
        int symbol = take_symbol(r, &literal_decoder);
        if (symbol < END) {
            out[at++] = (uint8_t)symbol;
            continue;
        }
        if (symbol == END) break;
        int b = symbol - 257, length = (int)((1u << b) | take_bits(r, b));
        b = take_symbol(r, &distance_decoder);
        int distance = (int)((1u << b) | take_bits(r, b));
        if (distance > at || at + length > start + expected) fail("match outside of the block");
        for (int i = 0; i < length; i++, at++) out[at] = out[at - distance];
    }
    align_reader(r);
    if (at - start != expected) fail("block of the wrong size");
    return at;
}

static uint32_t crc32(const uint8_t *bytes, size_t size) {
    static uint32_t table[256];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) crc = table[(crc ^ bytes[i]) & 255] ^ (crc >> 8);
    return ~crc;
}

static void one_round(uint8_t *input, uint8_t *output, Writer *w, int size, int report) {
    generate(input, (size_t)size);
    memset(head, 0xff, sizeof head);
    w->size = 0;
    literal_count = match_count = 0;
    for (int at = 0; at < size; at += BLOCK) compress_block(w, input, at, at + BLOCK < size ? at + BLOCK : size, size);
    Reader r = {w->bytes, w->size, 0, 0, 0};
    for (int at = 0; at < size;) at = decompress_block(&r, output, at);
    if (memcmp(input, output, (size_t)size) != 0) fail("decompressed bytes differ from the input");
    if (!report) return;
    printf("%d bytes to %u (%.3f bits a byte)\n", size, (unsigned)w->size, 8.0 * (double)w->size / size);
    printf("literals %llu matches %llu\n", (unsigned long long)literal_count, (unsigned long long)match_count);
    printf("crc32 input %08x compressed %08x output %08x\n", (unsigned)crc32(input, (size_t)size),
           (unsigned)crc32(w->bytes, w->size), (unsigned)crc32(output, (size_t)size));
}

int main(int argc, char **argv) {
    int size = (argc > 1 ? atoi(argv[1]) : 96) * 1024, rounds = argc > 2 ? atoi(argv[2]) : 1;
    if (size <= 0 || size > (1 << 28) || rounds < 1) fail("size must be 1 to 262144 kibibytes");
    uint8_t *input = malloc((size_t)size), *output = malloc((size_t)size);
    Writer w = {malloc((size_t)size * 2 + 4096), 0, (size_t)size * 2 + 4096, 0, 0};
    if (!input || !output || !w.bytes) fail("out of memory");
    for (int round = 1; round <= rounds; round++) one_round(input, output, &w, size, round == rounds);
    return 0;
}
