// A plugin for QEMU's user emulation (plugin interface version 1, as of QEMU 4.2 and up to 8) that
// counts the instructions of a 64-bit ARM program: all, by kind, and by function.
//
//     qemu-aarch64 -plugin file=libcount.so,out=FILE PROGRAM
//
// A line is written to FILE wherever the program calls getpgid() with a number above `magic`, which
// fails and does nothing else: "mark NUMBER" and the instructions of each kind so far. Before the
// last line stand those of each function since the first mark: "function NAME" and the same; names
// are known of a program linked statically. One thread counts right: several would add at once.
//
// QEMU's header is in no package; what is used of it is declared here, from QEMU's documentation
// of its plugins.
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
typedef struct plugin_info plugin_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { INLINE_ADD_U64 = 0 };
typedef void (*syscall_callback)(plugin_id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2,
                                 uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                                 uint64_t a8);

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter,
                                              uint64_t value);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_callback);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;

enum { syscall_getpgid = 155 }; // of 64-bit ARM
static const uint64_t magic = 0x45560000;

// What an instruction does, from its encoding (Arm ARM, "A64 instruction set encoding").
enum kind {
    load_vector,
    load,
    store,
    fma_vector,
    dot,
    multiply_integer,
    widen_half,
    vector,
    branch,
    other,
    n_kinds
};
static const char *const names[n_kinds] = {
    "load_vector",      "load",       "store",  "fma_vector", "dot",
    "multiply_integer", "widen_half", "vector", "branch",     "other"};

struct pattern {
    uint32_t mask, bits;
    enum kind kind;
};

static const struct pattern patterns[] = {
    {0xbf20fc00, 0x0e20cc00, fma_vector},       // FMLA, FMLS of 32 and 64 bits
    {0xbf80b400, 0x0f801000, fma_vector},       // the same by an element
    {0xbf60fc00, 0x0e400c00, fma_vector},       // FMLA, FMLS of 16 bits
    {0xbfc0b400, 0x0f001000, fma_vector},       // the same by an element
    {0x9fe0fc00, 0x0e809400, dot},              // SDOT, UDOT
    {0x9fc0f400, 0x0f80e000, dot},              // the same by an element
    {0xbf20fc00, 0x0e20c000, multiply_integer}, // SMULL
    {0xbf20fc00, 0x0e208000, multiply_integer}, // SMLAL
    {0xbf20fc00, 0x0e209c00, multiply_integer}, // MUL
    {0xbf20fc00, 0x0e209400, multiply_integer}, // MLA
    {0xbfbffc00, 0x0e217800, widen_half},       // FCVTL
    {0xfffffc00, 0x1ee24000, widen_half},       // FCVT from half to single
    {0x0e000000, 0x0e000000, vector},           // the rest of SIMD and floating point
    {0x0a000000, 0x08000000, load},             // loads and stores, told apart below
    {0x1c000000, 0x14000000, branch},
};

static enum kind kind_of(uint32_t code) {
    enum kind kind = other;
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; ++i) {
        if ((code & patterns[i].mask) == patterns[i].bits) {
            kind = patterns[i].kind;
            break;
        }
    }
    if (kind != load)
        return kind;
    const bool is_vector = code >> 26 & 1;
    // Loads of a literal have no such bit, pairs and vector structures have it at 22, as all
    // others; of one register in two bits, where 00 is a store, and for vectors 10, too.
    bool is_load = code >> 22 & 1;
    if ((code & 0x3b000000) == 0x18000000)
        is_load = true;
    else if ((code & 0x3a000000) == 0x38000000 && !is_vector)
        is_load = code >> 22 & 3;
    return !is_load ? store : is_vector ? load_vector : load;
}

// A piece of code without a jump in it, as QEMU translated it.
struct block {
    struct block *next;
    const char *function;
    uint64_t times, times_at_first_mark;
    uint32_t kinds[n_kinds];
};

static struct block *blocks;
static FILE *out;
static bool is_marked;

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
    (void)id;
    struct block *block = calloc(1, sizeof *block); // until the end
    const size_t n = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < n; ++i) {
        uint32_t code;
        memcpy(&code, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof code);
        ++block->kinds[kind_of(code)];
    }
    const char *name = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(tb, 0));
    block->function = name && *name ? name : "?";
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &block->times, 1);
}

static void write_line(const uint64_t *sums) {
    for (int kind = 0; kind < n_kinds; ++kind)
        fprintf(out, " %s=%" PRIu64, names[kind], sums[kind]);
    fputc('\n', out);
}

static void write_all(const char *what, uint64_t number) {
    uint64_t sums[n_kinds] = {0};
    for (const struct block *block = blocks; block; block = block->next) {
        for (int kind = 0; kind < n_kinds; ++kind)
            sums[kind] += block->times * block->kinds[kind];
    }
    fprintf(out, "%s %" PRIu64, what, number);
    write_line(sums);
    fflush(out);
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2,
                   uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)cpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != syscall_getpgid || a1 < magic || a1 > magic + 0xffff)
        return;
    write_all("mark", a1 - magic);
    if (!is_marked) {
        for (struct block *block = blocks; block; block = block->next)
            block->times_at_first_mark = block->times;
        is_marked = true;
    }
}

static int by_function(const void *a, const void *b) {
    return strcmp((*(struct block *const *)a)->function, (*(struct block *const *)b)->function);
}

static void ended(plugin_id id, void *unused) {
    (void)id, (void)unused;
    size_t n = 0;
    for (struct block *block = blocks; block; block = block->next)
        ++n;
    struct block **sorted = calloc(n + 1, sizeof *sorted);
    n = 0;
    for (struct block *block = blocks; block; block = block->next)
        sorted[n++] = block;
    qsort(sorted, n, sizeof *sorted, by_function);
    for (size_t i = 0; i < n;) {
        uint64_t sums[n_kinds] = {0};
        const char *function = sorted[i]->function;
        for (; i < n && strcmp(sorted[i]->function, function) == 0; ++i) {
            for (int kind = 0; kind < n_kinds; ++kind)
                sums[kind] +=
                    (sorted[i]->times - sorted[i]->times_at_first_mark) * sorted[i]->kinds[kind];
        }
        fprintf(out, "function %s", function);
        write_line(sums);
    }
    write_all("end", 0);
    fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; ++i) {
        if (strncmp(argv[i], "out=", 4) == 0)
            out = fopen(argv[i] + 4, "w");
    }
    if (!out) {
        fprintf(stderr, "count: out=FILE is missing, or cannot be written\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
