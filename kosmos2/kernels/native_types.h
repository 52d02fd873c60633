/* What the kernels pass to each other. The structs marked (python) are mirrored in native.py. */
#ifndef KOSMOS2_NATIVE_TYPES_H
#define KOSMOS2_NATIVE_TYPES_H

#include <stdint.h>

enum { GROUP = 128 };  /* numbers of a 4-bit row that share a scale */
enum { BLOCK = 64 };   /* rounded activations are padded with zeros to a multiple of this */
enum { SLOTS = 16, COPIED = 128 }; /* slots attended to at once; heads so wide are copied */
enum { LEVELS = 127 }; /* the largest rounded activation */

/* 16 floats, in registers of whatever width a function's instruction set has. */
typedef float Whole __attribute__((vector_size(64)));
typedef float Half __attribute__((vector_size(32)));
typedef float Quarter __attribute__((vector_size(16)));
typedef union {
    Whole whole;
    Half halves[2];
} Lanes;

/* (python) A weight matrix of n rows and k columns, row-major, as the files hold it. */
typedef struct {
    const void *weight; /* 8 bits: int8 (n, k). 4 bits: bytes (n, k / 2), two values + 8 in each.
                         * 16 bits: bf16 (n / 64, k / 2, 64, 2), k a multiple of 32 with zeros */
    const void *scale;  /* 8 bits: float (n). 4 bits: half floats (n, k / GROUP). 16 bits: null */
    const float *bias;  /* (n), or null */
    int64_t n, k;
    int64_t bits;
} Matrix;

/* Activations rounded row by row, to -127..127 or to bf16. `set` rows lie interleaved, a block of each in turn,
 * so that kernels which read them side by side read memory in order. */
typedef struct {
    int64_t rows, k;
    int64_t bits;      /* of the matrix that they will meet: 16 for bf16 */
    int64_t set;
    int64_t stride;    /* bytes of a row: those of k numbers rounded up to BLOCK */
    int64_t groups;    /* ceil(k / GROUP) */
    int8_t *values;    /* (rows / set, stride / BLOCK, set, BLOCK) */
    float *scale;      /* (rows): this and what follows not of bf16 */
    int32_t *sums;     /* (rows): of all values of a row */
    int32_t *partials; /* (rows, groups): of the values of a group */
} Rounded;

/* Return block 0 of a row; its next block is set * BLOCK bytes on. */
static inline int8_t *values_of(const Rounded *x, int64_t row) {
    return x->values + row / x->set * x->set * x->stride + row % x->set * BLOCK;
}

/* A rectangle of a product: rows m0..m1 of the activations, rows n0..n1 of the matrix. */
typedef struct {
    int64_t m0, m1, n0, n1;
} Tile;

/* (python) A layer norm's gain and offset. */
typedef struct {
    const float *weight, *bias;
} Norm;

/* (python) One decoder block. */
typedef struct {
    Norm attention_norm, mixed_norm, feedforward_norm, expanded_norm;
    Matrix qkv, output, expand, contract;
} Block;

/* (python) The decoder without its embedding. */
typedef struct {
    const Block *blocks;
    Norm norm;
    int64_t num_blocks, num_heads, width, feedforward_width;
    double norm_eps;
} Decoder;

/* (python) Slots of keys and values, float (num_blocks, rows, capacity, 2, width). */
typedef struct {
    float *memory;
    int64_t rows, capacity;
} Cache;

/* (python) Tokens to append: slots[i] of row rows[i]; tokens of one row follow one another. */
typedef struct {
    int64_t count;
    const int64_t *rows, *slots;
    int64_t num_wanted;
    const int64_t *wanted; /* indices of the tokens whose hidden states are asked for, ascending */
} Tokens;

/* Consecutive tokens of one row and some of the heads: what one thread attends for. */
typedef struct {
    const float *query; /* of the first token, first head; stride floats to the next token */
    float *mixed;       /* likewise, with its own stride */
    int64_t query_stride, mixed_stride;
    const float *held;  /* first slot of the row, key of the first head */
    int64_t width;      /* a slot holds width floats of keys, then width of values */
    int64_t num_queries, num_heads, head_width;
    int64_t num_keys;   /* what the first token sees; each next one sees one more */
    float *scores;      /* scratch: num_queries * num_heads times the keys, in whole SLOTS */
} Attention;

/* One instruction set's implementation of everything that computes. */
typedef struct {
    int64_t (*total)(const int64_t *x, int64_t n);
    void (*normalise)(const float *x, Norm norm, float eps, int64_t n, float *y);
    void (*round_row)(const float *x, const Rounded *out, int64_t row);
    void (*gelu)(float *x, int64_t n);
    void (*add)(float *x, const float *y, int64_t n);
    void (*attend)(const Attention *job);
    void (*product)(const Matrix *w, const Rounded *x, Tile tile, float *y, int64_t stride);
} Kernels;

#endif
