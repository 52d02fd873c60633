/* Optional kernels of kosmos2 for CPUs: products of 8- and 4-bit matrices, whole decoder steps.
 *
 * Built by `kosmos2 native build` with the system's C compiler and called by kernels/native.py
 * through ctypes. Every product is an exact sum of integers followed by the same float steps, so
 * every instruction set and every number of rows or threads gives the same bits.
 *
 * A step is one parallel region: its phases are parted by spinning barriers, work is handed out by
 * tickets, so that a thread the system holds back costs the others little.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <math.h>
#include <omp.h>
#include <stddef.h>

#include "native_team.h"
#include "native_types.h"

static _Thread_local Store call_store, row_store, score_store, few_store, panel_store, tile_store;

#define TARGET
#define NAME(x) x##_plain
#include "native_float.h"
#include "native_plain.h"
#undef TARGET
#undef NAME

#if defined(__x86_64__)
#include <immintrin.h>
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define NAME(x) x##_avx2
#include "native_float.h"
#include "native_avx2.h"
#undef TARGET
#undef NAME
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")))
#define NAME(x) x##_avx512
#define WIDE
#include "native_float.h"
#include "native_avx512.h"
#include "native_bf16.h"
#undef WIDE
#undef TARGET
#undef NAME
#endif

#define KERNELS(set)                                                                               \
    {total_##set, normalise_##set, round_row_##set, gelu_##set, add_##set, attend_##set,             \
     product_##set}

/* In ascending speed; the numbers are those of `k2_best` and of the argument `set`. */
static const Kernels kernels_of[] = {
    KERNELS(plain),
#if defined(__x86_64__)
    KERNELS(avx2),
    KERNELS(avx512),
#endif
};

/* Return the fastest set that this processor has. */
int k2_best(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vnni");
    return avx2 ? 1 + avx512 : 0;
#else
    return 0;
#endif
}

/* Whether the set avx512 also multiplies matrices of 16 bits. */
int k2_has_bf16(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    return k2_best() == 2 && __builtin_cpu_supports("avx512bf16");
#else
    return 0;
#endif
}

static void round_row(const Kernels *kernels, const float *x, const Rounded *out, int64_t row) {
#if defined(__x86_64__)
    if (out->bits == 16) {
        round_row16(x, out, row);
        return;
    }
#endif
    kernels->round_row(x, out, row);
}

static void product(const Kernels *kernels, const Matrix *w, const Rounded *x, Tile tile, float *y,
                    int64_t stride) {
#if defined(__x86_64__)
    if (w->bits == 16) {
        product_bf16(w, x, tile, y, stride);
        return;
    }
#endif
    kernels->product(w, x, tile, y, stride);
}

/* ---- products ------------------------------------------------------------------------------ */

enum {
    SHORT_PIECE = 128 << 10, /* bytes of weights, several microseconds */
    PANEL_ROWS = 64,
    PAIR_ROWS = 32,
    TALL_ROWS = 192, /* rows of activations a ticket: in the second cache with their weights */
    SHARED_ROWS = 24, ROW_PARTS = 4, /* so many rows are worth sharing, in so many parts */
    FEW_ROWS = 8,    /* up to here all rows are interleaved, above always so many: */
    SET_ROWS = 6
};

/* What happens to the columns of a product that a thread has just finished. */
typedef enum { KEEP, GELU, ADD, STORE, QUICK_GELU } After;

typedef struct {
    const Kernels *kernels;
    const Matrix *w;
    const Rounded *x;
    float *y; /* (rows, w->n); QUICK_GELU: null */
    After after;
    const Rounded *rounded; /* QUICK_GELU: where the columns go, as bf16 */
    float *sum; /* ADD: (rows, w->n), what the product is added to */
    const Cache *cache; /* STORE: columns from `width` on are keys and values */
    const Tokens *tokens;
    int64_t layer, width;
} Product;

static void finish_store(const Product *p, Tile tile) {
    int64_t width = p->width, first = tile.n0 > width ? tile.n0 : width;
    if (first >= tile.n1)
        return;
    for (int64_t m = tile.m0; m < tile.m1; m++) {
        int64_t row = p->layer * p->cache->rows + p->tokens->rows[m];
        float *slot = p->cache->memory +
                      (row * p->cache->capacity + p->tokens->slots[m]) * 2 * width;
        memcpy(slot + first - width, p->y + m * p->w->n + first,
               (size_t)(tile.n1 - first) * sizeof(float));
    }
}

static void finish_tile(const Product *p, Tile tile) {
    if (p->after == STORE) {
        finish_store(p, tile);
    } else if (p->after != KEEP) {
        for (int64_t m = tile.m0; m < tile.m1; m++) {
            float *y = p->y + m * p->w->n + tile.n0;
            if (p->after == GELU)
                p->kernels->gelu(y, tile.n1 - tile.n0);
            else
                p->kernels->add(p->sum + m * p->w->n + tile.n0, y, tile.n1 - tile.n0);
        }
    }
}

static int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }

/* Up to 64 columns that are never written out: behind their GELU they meet the next matrix. */
static void round_tile(const Product *p, Tile tile) {
#if defined(__x86_64__)
    int64_t rows = tile.m1 - tile.m0;
    float *y = (float *)reserve(&tile_store, (size_t)(rows * PANEL_ROWS) * sizeof(float));
    product(p->kernels, p->w, p->x, tile, y - tile.m0 * PANEL_ROWS - tile.n0, PANEL_ROWS);
    for (int64_t m = 0; m < rows; m++) {
        quick_gelu_avx512(y + m * PANEL_ROWS, tile.n1 - tile.n0);
        round_part16(y + m * PANEL_ROWS, p->rounded, tile.m0 + m, tile.n0, tile.n1 - tile.n0);
    }
#else
    (void)p, (void)tile;
#endif
}

/* How the columns of a product are handed out: a long piece to each thread, which is read in order,
 * then short ones to whoever has time left. */
typedef struct {
    int64_t pieces, first; /* how many there are; columns of the first `threads` of them */
    int64_t others, threads;
} Pieces;

static Pieces pieces_of(const Matrix *w, int64_t rows, int64_t threads) {
    int64_t unit = rows > FEW_ROWS ? PANEL_ROWS : PAIR_ROWS;
    int64_t row_size = w->k * w->bits / 8 + 1;
    Pieces p = {.threads = threads, .others = SHORT_PIECE / row_size / unit * unit};
    p.others = p.others < unit || rows > TALL_ROWS ? unit : p.others;
    p.first = rows > TALL_ROWS ? unit : w->n * 7 / 8 / threads / unit * unit;
    int64_t rest = w->n - p.first * threads;
    p.pieces = threads + (rest > 0 ? (rest + p.others - 1) / p.others : 0);
    return p;
}

static int64_t start_of(const Pieces *p, int64_t piece) {
    return piece <= p->threads ? piece * p->first
                               : p->threads * p->first + (piece - p->threads) * p->others;
}

static void multiply_tile(const Product *p, Tile tile) {
    if (tile.n0 >= tile.n1 || tile.m0 >= tile.m1)
        return;
    if (p->after == QUICK_GELU) {
        round_tile(p, tile);
        return;
    }
    product(p->kernels, p->w, p->x, tile, p->y, p->w->n);
    finish_tile(p, tile);
}

/* 16 bits: weights lie in panels, each of which is finished while it is in the cache. The last ones
 * are shared by their rows of activations too, for a panel takes a while. */
static void multiply_panels(Counter *counter, const Product *p, int64_t threads) {
    int64_t rows = p->x->rows, panels = (p->w->n + PANEL_ROWS - 1) / PANEL_ROWS;
    int64_t first = panels * 7 / 8 / threads, parts = rows >= SHARED_ROWS ? ROW_PARTS : 1;
    int64_t part = (rows + parts * SET_ROWS - 1) / (parts * SET_ROWS) * SET_ROWS;
    int64_t tickets = threads + (panels - first * threads) * parts;
    for (int64_t ticket; (ticket = take(counter)) < tickets;) {
        int64_t shared = ticket - threads;
        int64_t panel = shared < 0 ? ticket * first : first * threads + shared / parts;
        Tile tile = {.m1 = rows};
        if (shared >= 0) {
            tile.m0 = shared % parts * part;
            tile.m1 = min(tile.m0 + part, rows);
        }
        for (int64_t end = shared < 0 ? panel + first : panel + 1; panel < end; panel++) {
            tile.n0 = panel * PANEL_ROWS;
            tile.n1 = min(tile.n0 + PANEL_ROWS, p->w->n);
            multiply_tile(p, tile);
        }
    }
}

/* Rows of activations outside, so that a ticket finds them in the cache. */
static void multiply_rows(Counter *counter, const Product *p, int64_t threads) {
    Pieces pieces = pieces_of(p->w, p->x->rows, threads);
    int64_t down = (p->x->rows + TALL_ROWS - 1) / TALL_ROWS;
    for (int64_t ticket; (ticket = take(counter)) < pieces.pieces * down;) {
        int64_t m0 = ticket / pieces.pieces * TALL_ROWS, piece = ticket % pieces.pieces;
        Tile tile = {.m0 = m0, .m1 = min(m0 + TALL_ROWS, p->x->rows)};
        tile.n0 = min(start_of(&pieces, piece), p->w->n);
        tile.n1 = min(start_of(&pieces, piece + 1), p->w->n);
        multiply_tile(p, tile);
    }
}

/* One phase. */
static void multiply(Member *me, const Product *p) {
    Counter *counter = begin_phase(me);
    if (p->w->bits == 16)
        multiply_panels(counter, p, me->team->size);
    else
        multiply_rows(counter, p, me->team->size);
    barrier(me);
}

static int64_t stride_of(int64_t k, int64_t bits) {
    return (k * (bits == 16 ? 2 : 1) + BLOCK - 1) / BLOCK * BLOCK;
}

static size_t rounded_size(int64_t rows, int64_t k, int64_t bits) {
    int64_t stride = stride_of(k, bits), groups = (k + GROUP - 1) / GROUP;
    return (size_t)((rows + SET_ROWS) * (stride + (groups + 2) * 4) + 4 * LINE);
}

/* For a matrix of so many bits. */
static Rounded carve_rounded(char *memory, int64_t rows, int64_t k, int64_t bits) {
    Rounded x = {.rows = rows, .k = k, .bits = bits};
    x.set = rows <= (bits == 16 ? SET_ROWS : FEW_ROWS) ? rows : SET_ROWS;
    x.stride = stride_of(k, bits);
    x.groups = (k + GROUP - 1) / GROUP;
    x.values = carve(&memory, (size_t)((rows + x.set - 1) / x.set * x.set * x.stride));
    x.scale = carve(&memory, (size_t)rows * sizeof(float));
    x.sums = carve(&memory, (size_t)rows * sizeof(int32_t));
    x.partials = carve(&memory, (size_t)(rows * x.groups) * sizeof(int32_t));
    return x;
}

/* y (rows, n) = x (rows, k) times the matrix, both sides in few bits. */
void k2_linear(int set, int threads, const Matrix *w, const float *x, int64_t rows, float *y) {
    const Kernels *kernels = &kernels_of[set];
    char *memory = reserve(&call_store, rounded_size(rows, w->k, w->bits));
    Rounded rounded = carve_rounded(memory, rows, w->k, w->bits);
    Counter counters[2] = {0};
    Team team = {.size = threads, .counters = counters};
    Product product = {.kernels = kernels, .w = w, .x = &rounded, .y = y, .after = KEEP};
#pragma omp parallel num_threads(threads)
    {
        Member me = {.team = &team, .index = omp_get_thread_num()};
        Counter *counter = begin_phase(&me);
        for (int64_t row; (row = take(counter)) < rows;)
            round_row(kernels, x + row * w->k, &rounded, row);
        barrier(&me);
        multiply(&me, &product);
    }
}

/* ---- a decoder step ------------------------------------------------------------------------ */

enum { QUERIES = 8, HEADS = 8, PHASES_A_BLOCK = 9 };

typedef struct {
    const Kernels *kernels;
    const Decoder *decoder;
    const Cache *cache;
    const Tokens *tokens;
    int64_t count;        /* tokens still computed: fewer behind the last attention */
    float *x;             /* (count, width) */
    float *qkv;           /* (count, 3 * width) */
    float *mixed, *delta; /* (count, width) */
    float *expanded;      /* (count, feedforward_width) */
    char *rounded;        /* room for a Rounded of either width */
    int64_t *starts;      /* first tokens of the runs that attend together, then the count */
    int64_t num_runs;
} Step;

/* Ready to meet the matrix w. */
static Rounded normalise_rows(Member *me, const Step *s, const float *x, Norm norm,
                              const Matrix *w) {
    Counter *counter = begin_phase(me);
    int64_t k = w->k;
    Rounded rounded = carve_rounded(s->rounded, s->count, k, w->bits);
    float *y = (float *)reserve(&row_store, (size_t)k * sizeof(float));
    for (int64_t row; (row = take(counter)) < s->count;) {
        s->kernels->normalise(x + row * k, norm, (float)s->decoder->norm_eps, k, y);
        round_row(s->kernels, y, &rounded, row);
    }
    barrier(me);
    return rounded;
}

/* Tokens of a run are consecutive in one row, so they share what they read. */
static void find_runs(Step *s) {
    const Tokens *t = s->tokens;
    s->num_runs = 0;
    for (int64_t i = 0; i < t->count; i++) {
        int64_t start = s->num_runs ? s->starts[s->num_runs - 1] : -1;
        int follows = i > 0 && i - start < QUERIES && t->rows[i] == t->rows[i - 1] &&
                      t->slots[i] == t->slots[i - 1] + 1;
        if (!follows)
            s->starts[s->num_runs++] = i;
    }
    s->starts[s->num_runs] = t->count;
}

static void attend_rows(Member *me, const Step *s, int64_t layer) {
    Counter *counter = begin_phase(me);
    const Decoder *d = s->decoder;
    int64_t head_width = d->width / d->num_heads, groups = (d->num_heads + HEADS - 1) / HEADS;
    for (int64_t ticket; (ticket = take(counter)) < s->num_runs * groups;) {
        int64_t first = s->starts[ticket / groups], head = ticket % groups * HEADS;
        Attention job = {.width = d->width, .head_width = head_width};
        job.num_queries = s->starts[ticket / groups + 1] - first;
        job.num_heads = min(HEADS, d->num_heads - head);
        job.num_keys = s->tokens->slots[first] + 1;
        job.query_stride = 3 * d->width;
        job.mixed_stride = d->width;
        job.query = s->qkv + first * 3 * d->width + head * head_width;
        job.mixed = s->mixed + first * d->width + head * head_width;
        job.held = s->cache->memory + head * head_width +
                   (layer * s->cache->rows + s->tokens->rows[first]) * s->cache->capacity * 2 *
                       d->width;
        int64_t longest = (job.num_keys + job.num_queries - 1 + SLOTS - 1) / SLOTS * SLOTS;
        job.scores = (float *)reserve(
            &score_store, (size_t)(job.num_queries * job.num_heads * longest) * sizeof(float));
        s->kernels->attend(&job);
    }
    barrier(me);
}

/* Behind the last attention nobody reads the other tokens. Each thread counts for itself. */
static void keep_wanted(Member *me, Step *s) {
    const Tokens *t = s->tokens;
    size_t size = (size_t)s->decoder->width * sizeof(float);
    s->count = t->num_wanted;
    if (me->index == 0)
        for (int64_t i = 0; i < t->num_wanted; i++)
            if (t->wanted[i] != i) {
                memcpy((char *)s->x + (size_t)i * size, (char *)s->x + (size_t)t->wanted[i] * size, size);
                memcpy((char *)s->mixed + (size_t)i * size,
                       (char *)s->mixed + (size_t)t->wanted[i] * size, size);
            }
    barrier(me);
}

static void run_block(Member *me, Step *s, int64_t layer) {
    const Decoder *d = s->decoder;
    const Block *b = &d->blocks[layer];
    Rounded x = normalise_rows(me, s, s->x, b->attention_norm, &b->qkv);
    Product qkv = {.kernels = s->kernels, .w = &b->qkv, .x = &x, .y = s->qkv, .after = STORE,
                   .cache = s->cache, .tokens = s->tokens, .layer = layer, .width = d->width};
    multiply(me, &qkv);
    int is_last = layer == d->num_blocks - 1;
    if (is_last && s->tokens->num_wanted == 0) {
        s->count = 0;
        return; /* keys and values are all that somebody will read */
    }
    attend_rows(me, s, layer);
    if (is_last)
        keep_wanted(me, s);

    x = normalise_rows(me, s, s->mixed, b->mixed_norm, &b->output);
    Product output = {.kernels = s->kernels, .w = &b->output, .x = &x, .y = s->delta,
                      .after = ADD, .sum = s->x};
    multiply(me, &output);

    x = normalise_rows(me, s, s->x, b->feedforward_norm, &b->expand);
    Product expand = {.kernels = s->kernels, .w = &b->expand, .x = &x, .y = s->expanded,
                      .after = GELU};
    multiply(me, &expand);

    x = normalise_rows(me, s, s->expanded, b->expanded_norm, &b->contract);
    Product contract = {.kernels = s->kernels, .w = &b->contract, .x = &x, .y = s->delta,
                        .after = ADD, .sum = s->x};
    multiply(me, &contract);
}

static Step prepare(const Decoder *d, const Cache *cache, const Tokens *t, char *memory) {
    size_t floats = (size_t)t->count * sizeof(float), width = (size_t)d->width;
    Step s = {.decoder = d, .cache = cache, .tokens = t, .count = t->count};
    s.x = carve(&memory, floats * width);
    s.qkv = carve(&memory, floats * width * 3);
    s.mixed = carve(&memory, floats * width);
    s.delta = carve(&memory, floats * width);
    s.expanded = carve(&memory, floats * (size_t)d->feedforward_width);
    s.starts = carve(&memory, (size_t)(t->count + 1) * sizeof(int64_t));
    s.rounded = memory;
    return s;
}

static size_t step_size(const Decoder *d, const Tokens *t) {
    int64_t widest = d->width > d->feedforward_width ? d->width : d->feedforward_width;
    size_t floats = (size_t)(t->count * (6 * d->width + d->feedforward_width)) * sizeof(float);
    return floats + (size_t)(t->count + 1) * sizeof(int64_t) + 8 * LINE +
           rounded_size(t->count, widest, d->blocks[0].qkv.bits);
}

/* Append tokens x (count, width) to their rows; hidden (num_wanted, width) is behind the norm. */
void k2_step(int set, int threads, const Decoder *d, const Cache *cache, const Tokens *t,
             const float *x, float *hidden) {
    size_t phases = (size_t)(d->num_blocks * PHASES_A_BLOCK + 1);
    size_t counted = phases * sizeof(Counter);
    char *memory = reserve(&call_store, counted + step_size(d, t));
    memset(memory, 0, counted);
    Team team = {.size = threads, .counters = (Counter *)memory};
    Step shared = prepare(d, cache, t, memory + counted);
    shared.kernels = &kernels_of[set];
    memcpy(shared.x, x, (size_t)(t->count * d->width) * sizeof(float));
    find_runs(&shared);
#pragma omp parallel num_threads(threads)
    {
        Member me = {.team = &team, .index = omp_get_thread_num()};
        Step s = shared;
        for (int64_t layer = 0; layer < d->num_blocks; layer++)
            run_block(&me, &s, layer);
        Counter *counter = begin_phase(&me);
        for (int64_t row; (row = take(counter)) < s.count;)
            s.kernels->normalise(s.x + row * d->width, d->norm, (float)d->norm_eps, d->width,
                                 hidden + row * d->width);
    }
}

#if defined(__x86_64__)
#include "native_tower.h"
#endif

/* ---- memory -------------------------------------------------------------------------------- */

/* Read memory once with all threads, as fast as it comes; the sum keeps the compiler honest. */
int64_t k2_read(int set, int threads, const int64_t *memory, int64_t words) {
    int64_t total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        int64_t index = omp_get_thread_num(), share = words / threads;
        total += kernels_of[set].total(memory + index * share, share);
    }
    return total;
}

static int64_t advise(void *memory, int64_t size, int advice) {
    uintptr_t first = ((uintptr_t)memory + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    uintptr_t last = ((uintptr_t)memory + (uintptr_t)size) / HUGE_PAGE * HUGE_PAGE;
#if defined(__linux__)
    if (first < last && madvise((void *)first, last - first, advice) == 0)
        return (int64_t)(last - first);
#endif
    (void)advice;
    return 0;
}

/* Let fresh memory come in huge pages: its first use and its address tables cost less. Both return
 * the bytes concerned, 0 where the system cannot. */
int64_t k2_expect_huge_pages(void *memory, int64_t size) { return advise(memory, size, 14); }

/* Put memory that is in use on huge pages (MADV_COLLAPSE, newer than many headers). */
int64_t k2_use_huge_pages(void *memory, int64_t size) {
    k2_expect_huge_pages(memory, size);
    return advise(memory, size, 25);
}
