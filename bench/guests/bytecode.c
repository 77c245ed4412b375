/* An interpreter loop: a stack machine with locals, calls and an array heap, dispatched by one switch. Programs come from a
 * small assembler in this file: primes by sieve, Collatz lengths, recursive Fibonacci, a string hash.
 *
 * usage: bytecode [scale]     prints what each program computes and the number of instructions executed
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
    HALT, PUSH, DUP, DROP, SWAP, OVER, ADD, SUB, MUL, DIV, MOD, AND, XOR, SHL, SHR,
    EQ, LT, GT, NOT, GET, SET, INCREMENT, LOAD, STORE, JUMP, JUMP_IF, JUMP_UNLESS, CALL, RETURN, PRINT,
} Opcode;

static const struct { const char *name; Opcode opcode; int operand; } mnemonics[] = {
    {"halt", HALT, 0}, {"push", PUSH, 1}, {"dup", DUP, 0}, {"drop", DROP, 0}, {"swap", SWAP, 0}, {"over", OVER, 0},
    {"add", ADD, 0}, {"sub", SUB, 0}, {"mul", MUL, 0}, {"div", DIV, 0}, {"mod", MOD, 0}, {"and", AND, 0},
    {"xor", XOR, 0}, {"shl", SHL, 0}, {"shr", SHR, 0}, {"eq", EQ, 0}, {"lt", LT, 0}, {"gt", GT, 0}, {"not", NOT, 0},
    {"get", GET, 1}, {"set", SET, 1}, {"inc", INCREMENT, 1}, {"load", LOAD, 0}, {"store", STORE, 0},
    {"jump", JUMP, 1}, {"jump_if", JUMP_IF, 1}, {"jump_unless", JUMP_UNLESS, 1},
    {"call", CALL, 1}, {"return", RETURN, 0}, {"print", PRINT, 0},
};

enum { CODE_LIMIT = 1024, LABEL_LIMIT = 64, STACK_LIMIT = 4096, FRAME_LIMIT = 256, LOCALS = 8, HEAP = 1 << 20 };

typedef struct { int32_t opcode, operand; } Instruction;
typedef struct { char name[24]; int address; } Label;
typedef struct { int return_address; int64_t local[LOCALS]; } Frame;

static void fail(const char *what, const char *detail) {
    printf("bytecode: %s %s\n", what, detail);
    exit(1);
}

/* ---- assembler: words separated by blanks; `name:` defines a label, `@name` refers to one, `$n` is the workload size ---- */

static int assemble(const char *source, Instruction *code, int64_t size) {
    Label labels[LABEL_LIMIT];
    int label_count = 0, count = 0;
    for (int pass = 0; pass < 2; pass++) {
        const char *p = source;
        count = 0;
        for (;;) {
            char word[24];
            int used = 0;
            if (sscanf(p, " %23s%n", word, &used) != 1) break;
            p += used;
            size_t length = strlen(word);
            if (word[length - 1] == ':') {
                word[length - 1] = 0;
                if (pass == 0) {
                    if (label_count == LABEL_LIMIT) fail("too many labels at", word);
                    strcpy(labels[label_count].name, word);
                    labels[label_count++].address = count;
                }
                continue;
            }
            unsigned k = 0;
            while (k < sizeof mnemonics / sizeof *mnemonics && strcmp(mnemonics[k].name, word) != 0) k++;
            if (k == sizeof mnemonics / sizeof *mnemonics) fail("unknown instruction", word);
            Instruction instruction = {mnemonics[k].opcode, 0};
            if (mnemonics[k].operand) {
                if (sscanf(p, " %23s%n", word, &used) != 1) fail("missing operand of", mnemonics[k].name);
                p += used;
                if (word[0] == '@') {
                    int found = -1;
                    for (int i = 0; i < label_count; i++)
                        if (strcmp(labels[i].name, word + 1) == 0) found = labels[i].address;
                    if (pass == 1 && found < 0) fail("unknown label", word);
                    instruction.operand = found;
                } else {
                    instruction.operand = word[0] == '$' ? (int32_t)size : (int32_t)atoi(word);
                }
            }
            if (count == CODE_LIMIT) fail("program too long", "");
            code[count++] = instruction;
        }
    }
    return count;
}

/* ---- machine ---- */

static int64_t stack[STACK_LIMIT];
static Frame frames[FRAME_LIMIT];
static int64_t heap[HEAP];

static uint64_t run(const Instruction *code, int count) {
    uint64_t executed = 0;
    int pc = 0, frame = 0;
    int64_t *top = stack + 8; /* one past the topmost value */
    memset(frames, 0, sizeof frames);
    memset(heap, 0, sizeof heap);
    for (;;) {
        if (pc < 0 || pc >= count) fail("program counter out of range", "");
        if (top < stack + 8 || top > stack + STACK_LIMIT - 8) fail("stack out of range", "");
        const Instruction instruction = code[pc++];
        executed++;
        switch ((Opcode)instruction.opcode) {
        case HALT: return executed;
        case PUSH: *top++ = instruction.operand; break;
        case DUP: top[0] = top[-1]; top++; break;
        case DROP: top--; break;
        case SWAP: { int64_t t = top[-1]; top[-1] = top[-2]; top[-2] = t; break; }
        case OVER: top[0] = top[-2]; top++; break;
        case ADD: top--; top[-1] = (int64_t)((uint64_t)top[-1] + (uint64_t)top[0]); break;
        case SUB: top--; top[-1] = (int64_t)((uint64_t)top[-1] - (uint64_t)top[0]); break;
        case MUL: top--; top[-1] = (int64_t)((uint64_t)top[-1] * (uint64_t)top[0]); break;
        case DIV: top--; if (top[0] == 0) fail("division by zero", ""); top[-1] /= top[0]; break;
        case MOD: top--; if (top[0] == 0) fail("division by zero", ""); top[-1] %= top[0]; break;
        case AND: top--; top[-1] &= top[0]; break;
        case XOR: top--; top[-1] ^= top[0]; break;
        case SHL: top--; top[-1] = (int64_t)((uint64_t)top[-1] << (top[0] & 63)); break;
        case SHR: top--; top[-1] = (int64_t)((uint64_t)top[-1] >> (top[0] & 63)); break;
        case EQ: top--; top[-1] = top[-1] == top[0]; break;
        case LT: top--; top[-1] = top[-1] < top[0]; break;
        case GT: top--; top[-1] = top[-1] > top[0]; break;
        case NOT: top[-1] = !top[-1]; break;
        case GET: *top++ = frames[frame].local[instruction.operand & (LOCALS - 1)]; break;
        case SET: frames[frame].local[instruction.operand & (LOCALS - 1)] = *--top; break;
        case INCREMENT: frames[frame].local[instruction.operand & (LOCALS - 1)]++; break;
        case LOAD: top[-1] = heap[top[-1] & (HEAP - 1)]; break;
        case STORE: top -= 2; heap[top[1] & (HEAP - 1)] = top[0]; break;
        case JUMP: pc = instruction.operand; break;
        case JUMP_IF: if (*--top) pc = instruction.operand; break;
        case JUMP_UNLESS: if (!*--top) pc = instruction.operand; break;
        case CALL:
            if (++frame == FRAME_LIMIT) fail("calls too deep", "");
            frames[frame].return_address = pc;
            pc = instruction.operand;
            break;
        case RETURN:
            if (frame == 0) fail("return without call", "");
            pc = frames[frame--].return_address;
            break;
        case PRINT: printf(" %lld", (long long)*--top); break;
        default: fail("unknown opcode", "");
        }
    }
}

/* ---- programs ---- */

static const char *const sieve =
    "push 2 set 0 "
    "outer: get 0 dup mul push $n gt jump_if @count "
    "get 0 load jump_if @next "
    "get 0 dup mul set 1 "
    "mark: get 1 push $n gt jump_if @next "
    "push 1 get 1 store get 1 get 0 add set 1 jump @mark "
    "next: inc 0 jump @outer "
    "count: push 2 set 0 push 0 set 2 push 0 set 3 "
    "scan: get 0 push $n gt jump_if @done "
    "get 0 load jump_if @skip inc 2 get 0 set 3 "
    "skip: inc 0 jump @scan "
    "done: get 2 print get 3 print halt";

static const char *const collatz =
    "push 1 set 0 push 0 set 1 push 0 set 2 "
    "outer: get 0 push $n gt jump_if @done "
    "get 0 set 3 push 0 set 4 "
    "step: get 3 push 1 eq jump_if @compare "
    "inc 4 get 3 push 1 and jump_if @odd "
    "get 3 push 1 shr set 3 jump @step "
    "odd: get 3 push 3 mul push 1 add set 3 jump @step "
    "compare: get 4 get 1 gt not jump_if @next get 4 set 1 get 0 set 2 "
    "next: inc 0 jump @outer "
    "done: get 2 print get 1 print halt";

static const char *const fibonacci =
    "push $n call @fib print halt "
    "fib: set 0 get 0 push 2 lt jump_if @small "
    "get 0 push 1 sub call @fib get 0 push 2 sub call @fib add return "
    "small: get 0 return";

static const char *const hash =
    "push 5381 set 0 push 0 set 1 "
    "loop: get 1 push $n eq jump_if @done "
    "get 0 push 33 mul get 1 push 255 and xor set 0 "
    "get 0 push 7 shr get 0 xor set 0 inc 1 "
    "get 0 push 1023 and dup load push 1 add swap store "
    "jump @loop "
    "done: get 0 print push 0 set 1 push 0 set 2 "
    "sum: get 1 push 1024 eq jump_if @end get 1 load dup mul get 2 add set 2 inc 1 jump @sum "
    "end: get 2 print halt";

int main(int argc, char **argv) {
    int scale = argc > 1 ? atoi(argv[1]) : 4;
    if (scale < 1 || scale > 1000) return 1;
    int fib = 14; /* grows with the logarithm of the scale, because its cost grows exponentially */
    for (int s = scale; s > 1; s = s * 2 / 3) fib++;
    struct { const char *name, *source; int64_t size; } programs[] = {
        {"sieve", sieve, 4000 * (int64_t)scale < HEAP ? 4000 * (int64_t)scale : HEAP - 1},
        {"collatz", collatz, 300 * (int64_t)scale}, {"fibonacci", fibonacci, fib}, {"hash", hash, 8000 * (int64_t)scale},
    };
    static Instruction code[CODE_LIMIT];
    for (unsigned i = 0; i < sizeof programs / sizeof *programs; i++) {
        int count = assemble(programs[i].source, code, programs[i].size);
        printf("%-10s", programs[i].name);
        uint64_t executed = run(code, count);
        printf(" (%llu instructions)\n", (unsigned long long)executed);
    }
    return 0;
}
