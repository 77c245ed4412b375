/* An emulator: a 32-bit RISC-V processor (RV32IM without privileges) that runs programs put together by the small assembler
 * in this file: a checksum, a sort, recursion, and long division without the divide instruction.
 *
 * usage: emulator [scale]     prints what each program leaves in its result register and the number of instructions executed
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MEMORY = 1 << 18, DATA = 0x10000, STACK = MEMORY - 16, CODE_LIMIT = 512, LABELS = 32 };

static uint8_t memory[MEMORY];

static void fail(const char *what, uint32_t pc) {
    printf("emulator: %s at %08x\n", what, (unsigned)pc);
    exit(1);
}

/* ---- processor ---- */

typedef struct {
    uint32_t x[32], pc;
    uint64_t executed;
} Processor;

static uint32_t load(uint32_t address, uint32_t size, uint32_t pc) {
    if (address > MEMORY - size) fail("load out of memory", pc);
    uint32_t value = 0;
    memcpy(&value, memory + address, size);
    return value;
}

static void store(uint32_t address, uint32_t value, uint32_t size, uint32_t pc) {
    if (address > MEMORY - size) fail("store out of memory", pc);
    memcpy(memory + address, &value, size);
}

static uint32_t multiply_divide(uint32_t kind, uint32_t a, uint32_t b) {
    int32_t sa = (int32_t)a, sb = (int32_t)b;
    switch (kind) {
    case 0: return a * b;
    case 1: return (uint32_t)(((int64_t)sa * sb) >> 32);
    case 2: return (uint32_t)(((int64_t)sa * (int64_t)(uint64_t)b) >> 32);
    case 3: return (uint32_t)(((uint64_t)a * b) >> 32);
    case 4: return b == 0 ? ~0u : a == 0x80000000u && sb == -1 ? a : (uint32_t)(sa / sb);
    case 5: return b == 0 ? ~0u : a / b;
    case 6: return b == 0 ? a : a == 0x80000000u && sb == -1 ? 0 : (uint32_t)(sa % sb);
    default: return b == 0 ? a : a % b;
    }
}

static uint32_t arithmetic(uint32_t kind, uint32_t a, uint32_t b, int alternative) {
    switch (kind) {
    case 0: return alternative ? a - b : a + b;
    case 1: return a << (b & 31);
    case 2: return (int32_t)a < (int32_t)b;
    case 3: return a < b;
    case 4: return a ^ b;
    case 5: return alternative ? (uint32_t)((int32_t)a >> (b & 31)) : a >> (b & 31);
    case 6: return a | b;
    default: return a & b;
    }
}

static int taken(uint32_t kind, uint32_t a, uint32_t b, uint32_t pc) {
    switch (kind) {
    case 0: return a == b;
    case 1: return a != b;
    case 4: return (int32_t)a < (int32_t)b;
    case 5: return (int32_t)a >= (int32_t)b;
    case 6: return a < b;
    case 7: return a >= b;
    default: fail("unknown branch", pc); return 0;
    }
}

/* Runs until `ecall`; the result is in a0 (x10). */
static uint32_t run(Processor *p) {
    uint32_t *x = p->x;
    for (;;) {
        uint32_t pc = p->pc, word = load(pc, 4, pc);
        uint32_t rd = word >> 7 & 31, kind = word >> 12 & 7, a = x[word >> 15 & 31], b = x[word >> 20 & 31];
        int32_t immediate = (int32_t)word >> 20;
        uint32_t next = pc + 4, result = 0;
        p->executed++;
        switch (word & 127) {
        case 0x37: result = word & 0xfffff000u; break;                                 /* lui */
        case 0x17: result = pc + (word & 0xfffff000u); break;                          /* auipc */
        case 0x6f:                                                                     /* jal */
            result = next;
            next = pc + (uint32_t)(((int32_t)(word & 0x80000000u) >> 11) | (int32_t)(word & 0xff000) |
                                   (int32_t)(word >> 9 & 0x800) | (int32_t)(word >> 20 & 0x7fe));
            break;
        case 0x67: result = next; next = (a + (uint32_t)immediate) & ~1u; break;       /* jalr */
        case 0x63:                                                                     /* branches */
            if (taken(kind, a, b, pc))
                next = pc + (uint32_t)(((int32_t)(word & 0x80000000u) >> 19) | (int32_t)(word << 4 & 0x800) |
                                       (int32_t)(word >> 20 & 0x7e0) | (int32_t)(word >> 7 & 0x1e));
            rd = 0;
            break;
        case 0x03: {                                                                   /* loads */
            uint32_t address = a + (uint32_t)immediate;
            switch (kind) {
            case 0: result = (uint32_t)(int32_t)(int8_t)load(address, 1, pc); break;
            case 1: result = (uint32_t)(int32_t)(int16_t)load(address, 2, pc); break;
            case 2: result = load(address, 4, pc); break;
            case 4: result = load(address, 1, pc); break;
            case 5: result = load(address, 2, pc); break;
            default: fail("unknown load", pc);
            }
            break;
        }
        case 0x23: {                                                                   /* stores */
            uint32_t address = a + (uint32_t)((immediate & ~31) | (int32_t)rd);
            if (kind > 2) fail("unknown store", pc);
            store(address, b, 1u << kind, pc);
            rd = 0;
            break;
        }
        case 0x13: result = arithmetic(kind, a, (uint32_t)immediate, kind == 5 && word >> 30 & 1); break;
        case 0x33: result = word >> 25 == 1 ? multiply_divide(kind, a, b) : arithmetic(kind, a, b, word >> 30 & 1); break;
        case 0x73: return x[10];                                                       /* ecall: the end */
        default: fail("unknown instruction", pc);
        }
        if (rd) x[rd] = result;
        p->pc = next;
    }
}

/* ---- assembler: instructions are appended to the code, jumps name labels that are filled in at the end ---- */

static uint32_t code[CODE_LIMIT];
static int size;
static int label_at[LABELS];
static struct { int at, label; } fixes[CODE_LIMIT];
static int fix_count;

enum { ZERO = 0, RA = 1, SP = 2, T0 = 5, T1 = 6, T2 = 7, S0 = 8, S1 = 9, A0 = 10, A1 = 11, A2 = 12, A3 = 13, A4 = 14 };
enum { BEQ = 0, BNE = 1, BLT = 4, BGE = 5, BLTU = 6, BGEU = 7 };

static void emit(uint32_t word) {
    if (size == CODE_LIMIT) fail("program too long", 0);
    code[size++] = word;
}

static void label(int n) { label_at[n] = size; }

static void reg(uint32_t kind, uint32_t top, uint32_t rd, uint32_t a, uint32_t b) {
    emit(top << 25 | b << 20 | a << 15 | kind << 12 | rd << 7 | 0x33);
}

static void imm(uint32_t kind, uint32_t rd, uint32_t a, int32_t value) {
    emit((uint32_t)value << 20 | a << 15 | kind << 12 | rd << 7 | 0x13);
}

static void set(uint32_t rd, uint32_t value) {
    uint32_t low = value & 0xfff, high = (value + 0x800) & 0xfffff000u;
    emit(high | rd << 7 | 0x37);
    imm(0, rd, rd, (int32_t)(low << 20) >> 20);
}

static void load_word(uint32_t rd, uint32_t a, int32_t offset) { emit((uint32_t)offset << 20 | a << 15 | 2 << 12 | rd << 7 | 0x03); }
static void load_byte(uint32_t rd, uint32_t a, int32_t offset) { emit((uint32_t)offset << 20 | a << 15 | 4 << 12 | rd << 7 | 0x03); }

static void store_word(uint32_t b, uint32_t a, int32_t offset) {
    emit((uint32_t)(offset >> 5) << 25 | b << 20 | a << 15 | 2 << 12 | (uint32_t)(offset & 31) << 7 | 0x23);
}

static void branch(uint32_t kind, uint32_t a, uint32_t b, int to) {
    fixes[fix_count].at = size;
    fixes[fix_count++].label = to;
    emit(b << 20 | a << 15 | kind << 12 | 0x63);
}

static void jump(uint32_t rd, int to) {
    fixes[fix_count].at = size;
    fixes[fix_count++].label = to;
    emit(rd << 7 | 0x6f);
}

static void give_back(void) { emit(RA << 15 | 0x67); }
static void end(void) { emit(0x73); }

static uint32_t finish(Processor *p) {
    for (int i = 0; i < fix_count; i++) {
        uint32_t offset = (uint32_t)(label_at[fixes[i].label] - fixes[i].at) * 4, *word = &code[fixes[i].at];
        if ((*word & 127) == 0x6f)
            *word |= (offset & 0x100000) << 11 | (offset & 0x7fe) << 20 | (offset & 0x800) << 9 | (offset & 0xff000);
        else
            *word |= (offset & 0x1000) << 19 | (offset & 0x7e0) << 20 | (offset & 0x1e) << 7 | (offset & 0x800) >> 4;
    }
    memcpy(memory, code, sizeof(uint32_t) * (size_t)size);
    memset(p, 0, sizeof *p);
    p->x[SP] = STACK;
    size = fix_count = 0;
    return run(p);
}

/* ---- programs ---- */

static void checksum(uint32_t length) { /* CRC-32 bit by bit over `length` bytes of data */
    set(A1, DATA), set(A2, length), set(A3, 0xedb88320u), imm(0, A0, ZERO, -1);
    label(0);
    load_byte(T0, A1, 0), reg(4, 0, A0, A0, T0), imm(0, T1, ZERO, 8);
    label(1);
    imm(7, T2, A0, 1), imm(5, A0, A0, 1), branch(BEQ, T2, ZERO, 2), reg(4, 0, A0, A0, A3);
    label(2);
    imm(0, T1, T1, -1), branch(BNE, T1, ZERO, 1);
    imm(0, A1, A1, 1), imm(0, A2, A2, -1), branch(BNE, A2, ZERO, 0);
    imm(4, A0, A0, -1), end();
}

static void sort(uint32_t count) { /* insertion sort of words, then a sum that depends on the order */
    set(A1, DATA), set(A2, DATA + 4 * count), imm(0, A3, A1, 4);
    label(0);
    branch(BGEU, A3, A2, 3), load_word(T0, A3, 0), imm(0, A4, A3, 0);
    label(1);
    branch(BGEU, A1, A4, 2), load_word(T1, A4, -4), branch(BGEU, T0, T1, 2);
    store_word(T1, A4, 0), imm(0, A4, A4, -4), jump(ZERO, 1);
    label(2);
    store_word(T0, A4, 0), imm(0, A3, A3, 4), jump(ZERO, 0);
    label(3);
    imm(0, A0, ZERO, 0), imm(0, T2, ZERO, 31);
    label(4);
    load_word(T0, A1, 0), reg(0, 1, A0, A0, T2), reg(0, 0, A0, A0, T0);
    imm(0, A1, A1, 4), branch(BLTU, A1, A2, 4), end();
}

static void recursion(uint32_t n) { /* Fibonacci numbers with a stack frame a call */
    set(A0, n), jump(RA, 0), end();
    label(0);
    imm(2, T0, A0, 2), branch(BNE, T0, ZERO, 1);
    imm(0, SP, SP, -16), store_word(RA, SP, 0), store_word(S0, SP, 4), store_word(S1, SP, 8);
    imm(0, S0, A0, 0), imm(0, A0, S0, -1), jump(RA, 0);
    imm(0, S1, A0, 0), imm(0, A0, S0, -2), jump(RA, 0);
    reg(0, 0, A0, A0, S1), load_word(RA, SP, 0), load_word(S0, SP, 4), load_word(S1, SP, 8), imm(0, SP, SP, 16);
    label(1);
    give_back();
}

static void division(uint32_t rounds) { /* shift and subtract, checked against the divide and remainder instructions */
    set(A1, rounds), set(A2, 0x9e3779b9u), imm(0, A0, ZERO, 0), set(A3, 0x12345679u);
    label(0);
    imm(5, T1, A3, 16), imm(6, T1, T1, 1), imm(0, S0, ZERO, 0), imm(0, S1, ZERO, 0), imm(0, T2, ZERO, 31);
    label(1);
    imm(1, S1, S1, 1), reg(5, 0, T0, A3, T2), imm(7, T0, T0, 1), reg(6, 0, S1, S1, T0), imm(1, S0, S0, 1);
    branch(BLTU, S1, T1, 2), reg(0, 32, S1, S1, T1), imm(6, S0, S0, 1);
    label(2);
    imm(0, T2, T2, -1), branch(BGE, T2, ZERO, 1);
    reg(5, 1, T0, A3, T1), branch(BNE, T0, S0, 3), reg(7, 1, T0, A3, T1), branch(BNE, T0, S1, 3);
    reg(0, 0, A0, A0, S0), reg(4, 0, A0, A0, S1);
    reg(0, 1, A3, A3, A2), reg(3, 1, T0, A3, A2), reg(0, 0, A3, A3, T0);
    imm(0, A1, A1, -1), branch(BNE, A1, ZERO, 0), end();
    label(3);
    imm(0, A0, ZERO, -1), end();
}

static void fill_data(uint32_t length) {
    uint32_t state = 1;
    for (uint32_t i = 0; i < length; i++) {
        state = state * 1103515245u + 12345u;
        memory[DATA + i] = (uint8_t)(state >> 16);
    }
}

static void report(const char *name) {
    Processor p;
    uint32_t result = finish(&p);
    printf("%-10s %08x (%llu instructions)\n", name, (unsigned)result, (unsigned long long)p.executed);
}

int main(int argc, char **argv) {
    uint32_t scale = argc > 1 ? (uint32_t)atoi(argv[1]) : 1, root = 1, extra = 0;
    if (scale < 1 || scale > 1000) return 1;
    while (root * root < scale) root++;          /* the cost of the sort grows with the square, */
    for (uint32_t s = scale; s > 1; s = s * 2 / 3) extra++; /* that of the recursion exponentially */
    fill_data(0x20000);
    checksum(2000 * scale > 0x20000 ? 0x20000 : 2000 * scale);
    report("checksum");
    sort(300 * root > 0x8000 ? 0x8000 : 300 * root);
    report("sort");
    recursion(14 + extra);
    report("recursion");
    division(500 * scale);
    report("division");
    return 0;
}
