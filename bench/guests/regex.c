/* Regular expressions two ways: a backtracking matcher on the parsed tree, and a simulation of the automaton that keeps a
 * list of states. Both search the same generated log lines and must find the same lines.
 * Syntax: literals, '.', '[a-z]', '[^...]', '*', '+', '?', '|', '(...)', '^', '$', '\d' and '\w'.
 *
 * usage: regex [lines]     prints, for each pattern, how many lines match and the sum of the ends of the leftmost matches
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- program of the automaton; the backtracker runs the same program depth first ---- */

typedef enum { CHARACTER, ANY, CLASS, SPLIT, JUMP, START, FINISH, MATCH } Opcode;

enum { PROGRAM_LIMIT = 256, CLASS_LIMIT = 32 };

typedef struct {
    uint8_t opcode, character;
    int16_t first, second; /* targets; of CLASS the number of its set is `first` */
} Instruction;

typedef struct {
    Instruction code[PROGRAM_LIMIT];
    int size;
    uint32_t sets[CLASS_LIMIT][8];
    int set_count;
    const char *at; /* rest of the pattern while it is compiled */
} Program;

static void fail(const char *what) {
    printf("regex: %s\n", what);
    exit(1);
}

static int emit(Program *p, Opcode opcode, int first, int second) {
    if (p->size == PROGRAM_LIMIT) fail("pattern too long");
    p->code[p->size] = (Instruction){(uint8_t)opcode, 0, (int16_t)first, (int16_t)second};
    return p->size++;
}

/* Makes room for one instruction at `at`, moving what follows and the targets into it. */
static void insert(Program *p, int at, Opcode opcode, int first, int second) {
    emit(p, opcode, 0, 0);
    for (int i = p->size - 1; i > at; i--) {
        p->code[i] = p->code[i - 1];
        if (p->code[i].opcode == SPLIT || p->code[i].opcode == JUMP) {
            if (p->code[i].first >= at) p->code[i].first++;
            if (p->code[i].second >= at) p->code[i].second++;
        }
    }
    p->code[at] = (Instruction){(uint8_t)opcode, 0, (int16_t)first, (int16_t)second};
}

static void set_range(uint32_t *set, int low, int high) {
    for (int c = low; c <= high; c++) set[c >> 5] |= 1u << (c & 31);
}

static void add_shorthand(uint32_t *set, char letter) {
    set_range(set, '0', '9');
    if (letter == 'w') {
        set_range(set, 'a', 'z');
        set_range(set, 'A', 'Z');
        set_range(set, '_', '_');
    }
}

static void compile_class(Program *p) {
    if (p->set_count == CLASS_LIMIT) fail("too many classes");
    uint32_t *set = p->sets[p->set_count];
    int negated = 0;
    memset(set, 0, sizeof p->sets[0]);
    if (*p->at == '^') negated = 1, p->at++;
    while (*p->at && *p->at != ']') {
        int low = (uint8_t)*p->at++, high = low;
        if (low == '\\') {
            add_shorthand(set, *p->at++);
            continue;
        }
        if (p->at[0] == '-' && p->at[1] != ']') high = (uint8_t)p->at[1], p->at += 2;
        set_range(set, low, high);
    }
    if (*p->at++ != ']') fail("class without ]");
    if (negated)
        for (int i = 0; i < 8; i++) set[i] = ~set[i];
    emit(p, CLASS, p->set_count++, 0);
}

static void compile_alternatives(Program *p);

static void compile_piece(Program *p) {
    int start = p->size;
    char c = *p->at++;
    switch (c) {
    case '(':
        compile_alternatives(p);
        if (*p->at++ != ')') fail("group without )");
        break;
    case '[': compile_class(p); break;
    case '.': emit(p, ANY, 0, 0); break;
    case '^': emit(p, START, 0, 0); break;
    case '$': emit(p, FINISH, 0, 0); break;
    case '\\':
        c = *p->at++;
        if (c == 'd' || c == 'w') {
            if (p->set_count == CLASS_LIMIT) fail("too many classes");
            memset(p->sets[p->set_count], 0, sizeof p->sets[0]);
            add_shorthand(p->sets[p->set_count], c);
            emit(p, CLASS, p->set_count++, 0);
            break;
        }
        /* fall through */
    default: p->code[emit(p, CHARACTER, 0, 0)].character = (uint8_t)c;
    }
    while (*p->at == '*' || *p->at == '+' || *p->at == '?') {
        char repeat = *p->at++;
        if (repeat == '+') {
            emit(p, SPLIT, start, p->size + 1);
        } else {
            insert(p, start, SPLIT, start + 1, 0);
            if (repeat == '*') emit(p, JUMP, start, 0);
            p->code[start].second = (int16_t)p->size;
        }
    }
}

static void compile_alternatives(Program *p) {
    int start = p->size;
    while (*p->at && *p->at != '|' && *p->at != ')') compile_piece(p);
    if (*p->at != '|') return;
    p->at++;
    insert(p, start, SPLIT, start + 1, p->size + 2);
    int jump = emit(p, JUMP, 0, 0);
    compile_alternatives(p);
    p->code[jump].first = (int16_t)p->size;
}

static void compile(Program *p, const char *pattern) {
    memset(p, 0, sizeof *p);
    p->at = pattern;
    compile_alternatives(p);
    if (*p->at) fail("unbalanced )");
    emit(p, MATCH, 0, 0);
}

static int accepts(const Program *p, const Instruction *i, int c) {
    switch (i->opcode) {
    case CHARACTER: return c == i->character;
    case ANY: return 1;
    default: return p->sets[i->first][c >> 5] >> (c & 31) & 1;
    }
}

/* ---- depth first; returns the end of the match or -1. Loops over the empty string are cut by the budget. ---- */

static uint64_t steps;

static int backtrack(const Program *p, int pc, const char *text, int at, int length, int budget) {
    for (;;) {
        const Instruction *i = &p->code[pc];
        steps++;
        if (--budget < 0) return -1;
        switch (i->opcode) {
        case MATCH: return at;
        case JUMP: pc = i->first; break;
        case START: if (at != 0) return -1; pc++; break;
        case FINISH: if (at != length) return -1; pc++; break;
        case SPLIT: {
            int end = backtrack(p, i->first, text, at, length, budget);
            if (end >= 0) return end;
            pc = i->second;
            break;
        }
        default:
            if (at == length || !accepts(p, i, (uint8_t)text[at])) return -1;
            at++;
            pc++;
        }
    }
}

static int search_backtracking(const Program *p, const char *text, int length) {
    for (int start = 0; start <= length; start++) {
        int end = backtrack(p, 0, text, start, length, 4000);
        if (end >= 0) return end;
    }
    return -1;
}

/* ---- all states at once; priority order gives the same match as the backtracker ---- */

typedef struct {
    int16_t state[PROGRAM_LIMIT];
    uint32_t mark[PROGRAM_LIMIT];
    int count;
} States;

static uint32_t generation;

static void add_state(const Program *p, States *s, int pc, int at, int length) {
    if (s->mark[pc] == generation) return;
    s->mark[pc] = generation;
    const Instruction *i = &p->code[pc];
    switch (i->opcode) {
    case JUMP: add_state(p, s, i->first, at, length); break;
    case SPLIT:
        add_state(p, s, i->first, at, length);
        add_state(p, s, i->second, at, length);
        break;
    case START: if (at == 0) add_state(p, s, pc + 1, at, length); break;
    case FINISH: if (at == length) add_state(p, s, pc + 1, at, length); break;
    default: s->state[s->count++] = (int16_t)pc;
    }
}

static int search_automaton(const Program *p, const char *text, int length) {
    static States lists[2];
    States *now = &lists[0], *next = &lists[1];
    int end = -1;
    now->count = 0;
    for (int at = 0; at <= length; at++) {
        if (end < 0) { /* a match may start here, with the lowest priority */
            if (at == 0 || now->count == 0) generation++;
            add_state(p, now, 0, at, length);
        }
        next->count = 0;
        generation++;
        for (int k = 0; k < now->count; k++) {
            const Instruction *i = &p->code[now->state[k]];
            steps++;
            if (i->opcode == MATCH) {
                end = at;
                break; /* what follows in the list has lower priority */
            }
            if (at < length && accepts(p, i, (uint8_t)text[at])) add_state(p, next, now->state[k] + 1, at + 1, length);
        }
        States *t = now;
        now = next;
        next = t;
        if (now->count == 0 && end >= 0) break;
    }
    return end;
}

/* ---- input ---- */

static uint32_t seed = 424242;

static uint32_t next_random(void) {
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static int generate_line(char *line, int capacity) {
    static const char *const levels[] = {"INFO", "WARN", "ERROR", "DEBUG"};
    static const char *const messages[] = {
        "connection from 10.%u.%u.7 closed", "user_%u logged in (session %x)", "GET /items/%u?page=%u HTTP/1.1",
        "cache miss for key k%x after %u ms", "mail to someone%u@example%u.org queued", "aaaaaaaaaaaa %u b%u",
    };
    uint32_t r = next_random();
    int at = snprintf(line, (size_t)capacity, "2026-%02u-%02u %02u:%02u:%02u %s ", (unsigned)(r % 12 + 1), (unsigned)(r % 28 + 1),
                      (unsigned)(r % 24), (unsigned)(r % 60), (unsigned)(r / 7 % 60), levels[r % 4]);
    at += snprintf(line + at, (size_t)(capacity - at), messages[r / 64 % 6], (unsigned)(next_random() % 1000),
                   (unsigned)(next_random() % 300));
    return at;
}

static const char *const patterns[] = {
    "ERROR", "^2026-0[1-6]-", "\\d+\\.\\d+\\.\\d+\\.\\d+", "(GET|POST) /[a-z]+/\\d+\\?page=1?\\d ", "[\\w]+@[a-z0-9]+\\.(org|com|net)",
    "session [0-9a-f]*[05]\\)$", "(a|aa)+b", "(WARN|ERROR).*(closed|queued)$", "k[^ ]+ after [12]\\d\\d? ms", "x*y*z*$",
};

int main(int argc, char **argv) {
    int lines = argc > 1 ? atoi(argv[1]) : 150;
    if (lines < 1 || lines > 100000000) return 1;
    static char line[256];
    static Program program;
    for (unsigned k = 0; k < sizeof patterns / sizeof *patterns; k++) {
        uint32_t matched = 0, differ = 0;
        uint64_t ends = 0;
        compile(&program, patterns[k]);
        seed = 424242;
        steps = 0;
        for (int i = 0; i < lines; i++) {
            int length = generate_line(line, sizeof line);
            int by_automaton = search_automaton(&program, line, length);
            int by_backtracking = search_backtracking(&program, line, length);
            matched += by_automaton >= 0;
            ends += (uint64_t)(by_automaton + 1);
            differ += by_automaton != by_backtracking;
        }
        printf("%-44s %6u lines, ends %llu, steps %llu, differ %u\n", patterns[k], (unsigned)matched, (unsigned long long)ends,
               (unsigned long long)steps, (unsigned)differ);
    }
    return 0;
}
