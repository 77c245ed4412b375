/* A text parser: JSON by recursive descent into a tree from malloc, a printer for the tree, and queries on it. The document
 * is generated; printing the tree and parsing that again must give the same text.
 *
 * usage: json [records [rounds]]     prints sizes, counts of each kind of value, sums of a query and a hash of the text
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { NUL, BOOLEAN, NUMBER, STRING, ARRAY, OBJECT, KINDS } Kind;

typedef struct Value {
    Kind kind;
    uint32_t size;              /* bytes of a string, members of an array or object */
    union {
        int boolean;
        double number;
        char *text;
        struct Member *first;
    } as;
} Value;

typedef struct Member {
    struct Member *next;
    char *name;                 /* NULL in an array */
    Value value;
} Member;

typedef struct {
    char *bytes;
    size_t size, capacity;
} Text;

static void fail(const char *what, size_t at) {
    printf("json: %s at byte %u\n", what, (unsigned)at);
    exit(1);
}

static void *allocate(size_t size) {
    void *p = malloc(size ? size : 1);
    if (!p) fail("out of memory", 0);
    return p;
}

static void append(Text *text, const char *bytes, size_t size) {
    if (text->size + size > text->capacity) {
        text->capacity = (text->size + size) * 2 + 64;
        text->bytes = realloc(text->bytes, text->capacity);
        if (!text->bytes) fail("out of memory", text->size);
    }
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
}

static void append_text(Text *text, const char *s) { append(text, s, strlen(s)); }

/* ---- parser ---- */

typedef struct {
    const char *start, *at, *end;
    int depth;
    uint32_t count[KINDS];
} Parser;

static void skip_blanks(Parser *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\n' || *p->at == '\t' || *p->at == '\r')) p->at++;
}

static void expect(Parser *p, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(p->end - p->at) < length || memcmp(p->at, word, length) != 0) fail("unexpected text", (size_t)(p->at - p->start));
    p->at += length;
}

static int hex_digit(int c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static char *parse_string(Parser *p, uint32_t *size) {
    expect(p, "\"");
    const char *scan = p->at;
    while (scan < p->end && *scan != '"') scan += *scan == '\\' ? 2 : 1;
    if (scan >= p->end) fail("unterminated string", (size_t)(p->at - p->start));
    char *result = allocate((size_t)(scan - p->at) + 1), *out = result;
    while (*p->at != '"') {
        char c = *p->at++;
        if (c != '\\') {
            *out++ = c;
            continue;
        }
        c = *p->at++;
        switch (c) {
        case 'n': *out++ = '\n'; break;
        case 't': *out++ = '\t'; break;
        case 'r': *out++ = '\r'; break;
        case 'b': *out++ = '\b'; break;
        case 'f': *out++ = '\f'; break;
        case 'u': {
            uint32_t point = 0;
            for (int i = 0; i < 4; i++) {
                int digit = p->at < p->end ? hex_digit(*p->at++) : -1;
                if (digit < 0) fail("invalid escape", (size_t)(p->at - p->start));
                point = point << 4 | (uint32_t)digit;
            }
            if (point < 0x80) {
                *out++ = (char)point;
            } else if (point < 0x800) {
                *out++ = (char)(0xc0 | point >> 6);
                *out++ = (char)(0x80 | (point & 63));
            } else {
                *out++ = (char)(0xe0 | point >> 12);
                *out++ = (char)(0x80 | (point >> 6 & 63));
                *out++ = (char)(0x80 | (point & 63));
            }
            break;
        }
        default: *out++ = c;
        }
    }
    p->at++;
    *out = 0;
    *size = (uint32_t)(out - result);
    return result;
}

static double parse_number(Parser *p) {
    int negative = 0, digits = 0, exponent = 0;
    uint64_t mantissa = 0;
    if (*p->at == '-') negative = 1, p->at++;
    while (p->at < p->end && *p->at >= '0' && *p->at <= '9') mantissa = mantissa * 10 + (uint64_t)(*p->at++ - '0'), digits++;
    if (p->at < p->end && *p->at == '.') {
        p->at++;
        while (p->at < p->end && *p->at >= '0' && *p->at <= '9') {
            mantissa = mantissa * 10 + (uint64_t)(*p->at++ - '0');
            exponent--;
            digits++;
        }
    }
    if (!digits) fail("number without digits", (size_t)(p->at - p->start));
    if (p->at < p->end && (*p->at == 'e' || *p->at == 'E')) {
        int sign = 1, value = 0;
        p->at++;
        if (*p->at == '-' || *p->at == '+') sign = *p->at++ == '-' ? -1 : 1;
        while (p->at < p->end && *p->at >= '0' && *p->at <= '9') value = value * 10 + (*p->at++ - '0');
        exponent += sign * value;
    }
    double result = (double)mantissa, power = 10; /* exact here: at most 15 digits and small exponents are generated */
    for (int e = exponent < 0 ? -exponent : exponent; e; e >>= 1, power *= power)
        if (e & 1) result = exponent < 0 ? result / power : result * power;
    return negative ? -result : result;
}

static Value parse_value(Parser *p) {
    Value v;
    memset(&v, 0, sizeof v);
    skip_blanks(p);
    if (p->at >= p->end) fail("unexpected end", (size_t)(p->at - p->start));
    if (++p->depth > 200) fail("nested too deeply", (size_t)(p->at - p->start));
    switch (*p->at) {
    case 'n': expect(p, "null"); v.kind = NUL; break;
    case 't': expect(p, "true"); v.kind = BOOLEAN; v.as.boolean = 1; break;
    case 'f': expect(p, "false"); v.kind = BOOLEAN; break;
    case '"': v.kind = STRING; v.as.text = parse_string(p, &v.size); break;
    case '[':
    case '{': {
        int object = *p->at == '{';
        char close = object ? '}' : ']';
        Member **tail = &v.as.first;
        v.kind = object ? OBJECT : ARRAY;
        v.as.first = NULL;
        p->at++;
        skip_blanks(p);
        if (p->at < p->end && *p->at == close) {
            p->at++;
            break;
        }
        for (;;) {
            Member *member = allocate(sizeof *member);
            member->next = NULL;
            member->name = NULL;
            if (object) {
                uint32_t size;
                skip_blanks(p);
                member->name = parse_string(p, &size);
                skip_blanks(p);
                expect(p, ":");
            }
            member->value = parse_value(p);
            *tail = member;
            tail = &member->next;
            v.size++;
            skip_blanks(p);
            if (p->at < p->end && *p->at == close) break;
            expect(p, ",");
        }
        p->at++;
        break;
    }
    default: v.kind = NUMBER; v.as.number = parse_number(p);
    }
    p->count[v.kind]++;
    p->depth--;
    return v;
}

static void release(Value *v) {
    if (v->kind == STRING) free(v->as.text);
    if (v->kind != ARRAY && v->kind != OBJECT) return;
    for (Member *m = v->as.first; m;) {
        Member *next = m->next;
        release(&m->value);
        free(m->name);
        free(m);
        m = next;
    }
}

/* ---- printer ---- */

static void print_string(Text *text, const char *s) {
    append(text, "\"", 1);
    for (; *s; s++) {
        char escaped[8];
        if (*s == '"' || *s == '\\') {
            escaped[0] = '\\';
            escaped[1] = *s;
            append(text, escaped, 2);
        } else if ((uint8_t)*s < 32) {
            snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)*s);
            append(text, escaped, 6);
        } else {
            append(text, s, 1);
        }
    }
    append(text, "\"", 1);
}

static void print_value(Text *text, const Value *v) {
    char number[40];
    switch (v->kind) {
    case NUL: append_text(text, "null"); break;
    case BOOLEAN: append_text(text, v->as.boolean ? "true" : "false"); break;
    case NUMBER:
        if (v->as.number == (double)(int64_t)v->as.number) snprintf(number, sizeof number, "%lld", (long long)v->as.number);
        else snprintf(number, sizeof number, "%.6f", v->as.number);
        append_text(text, number);
        break;
    case STRING: print_string(text, v->as.text); break;
    default:
        append(text, v->kind == OBJECT ? "{" : "[", 1);
        for (const Member *m = v->as.first; m; m = m->next) {
            if (m->name) {
                print_string(text, m->name);
                append(text, ":", 1);
            }
            print_value(text, &m->value);
            if (m->next) append(text, ",", 1);
        }
        append(text, v->kind == OBJECT ? "}" : "]", 1);
    }
}

/* ---- generated document and queries ---- */

static uint32_t seed = 777;

static uint32_t next_random(void) {
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static void generate(Text *text, int records) {
    static const char *const tags[] = {"alpha", "beta\\n", "\\u00e9t\\u00e9", "quo\\\"te", "\\u20ac 5", "plain words here"};
    char line[256];
    append_text(text, "{ \"version\": 2,\n  \"records\": [\n");
    for (int i = 0; i < records; i++) {
        uint32_t r = next_random();
        snprintf(line, sizeof line, "    {\"id\": %d, \"price\": %u.%06u, \"delta\": -%u.5e-1, \"active\": %s, \"parent\": %s, ", i,
                 (unsigned)(r % 1000), (unsigned)(r >> 12 & 0x7ffff), (unsigned)(r % 77), r & 16 ? "true" : "false",
                 r & 32 ? "null" : "17");
        append_text(text, line);
        append_text(text, "\"tags\": [");
        for (uint32_t k = 0; k < r % 4; k++) {
            snprintf(line, sizeof line, "%s\"%s\"", k ? ", " : "", tags[(r >> (4 * k)) % 6]);
            append_text(text, line);
        }
        snprintf(line, sizeof line, "], \"at\": [%u, [%u, {\"deep\": [[%u]]}]]}%s\n", (unsigned)(r >> 3 & 255),
                 (unsigned)(r >> 11 & 255), (unsigned)(r >> 19), i + 1 < records ? "," : "");
        append_text(text, line);
    }
    append_text(text, "  ]\n}\n");
}

static const Value *find(const Value *v, const char *name) {
    if (v->kind != OBJECT) return NULL;
    for (const Member *m = v->as.first; m; m = m->next)
        if (strcmp(m->name, name) == 0) return &m->value;
    return NULL;
}

static uint64_t text_hash(const Text *text) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < text->size; i++) h = (h ^ (uint8_t)text->bytes[i]) * 0x100000001b3u;
    return h;
}

static uint32_t disagreements;

static void one_round(int records, int report) {
    Text source = {0}, once = {0}, twice = {0};
    generate(&source, records);
    Parser p = {source.bytes, source.bytes, source.bytes + source.size, 0, {0}};
    Value document = parse_value(&p);
    double total = 0, delta = 0;
    uint32_t active = 0, tagged = 0;
    for (const Member *m = find(&document, "records")->as.first; m; m = m->next) {
        total += find(&m->value, "price")->as.number;
        delta += find(&m->value, "delta")->as.number;
        active += (uint32_t)find(&m->value, "active")->as.boolean;
        tagged += find(&m->value, "tags")->size;
    }
    print_value(&once, &document);
    release(&document);
    Parser again = {once.bytes, once.bytes, once.bytes + once.size, 0, {0}};
    document = parse_value(&again);
    print_value(&twice, &document);
    release(&document);
    disagreements += once.size != twice.size || memcmp(once.bytes, twice.bytes, once.size) != 0;
    if (report) {
        printf("%u bytes: null %u boolean %u number %u string %u array %u object %u\n", (unsigned)source.size,
               (unsigned)p.count[NUL], (unsigned)p.count[BOOLEAN], (unsigned)p.count[NUMBER], (unsigned)p.count[STRING],
               (unsigned)p.count[ARRAY], (unsigned)p.count[OBJECT]);
        printf("price %.6f delta %.6f active %u tags %u\n", total, delta, (unsigned)active, (unsigned)tagged);
        printf("printed %u bytes, hash %016llx, round trips that differ: %u\n", (unsigned)once.size,
               (unsigned long long)text_hash(&once), (unsigned)disagreements);
    }
    free(source.bytes);
    free(once.bytes);
    free(twice.bytes);
}

int main(int argc, char **argv) {
    int records = argc > 1 ? atoi(argv[1]) : 400, rounds = argc > 2 ? atoi(argv[2]) : 1;
    if (records < 1 || rounds < 1) return 1;
    for (int round = 1; round <= rounds; round++) one_round(records, round == rounds);
    return 0;
}
