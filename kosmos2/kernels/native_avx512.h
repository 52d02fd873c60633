/* Products with AVX-512 VNNI: 64 multiplications of an unsigned by a signed byte in one step.
 *
 * One row: weights are read in order, which the processor foresees best. A few rows: four rows of
 * weights at a time, fetched ahead in order. Many rows: 64 rows of weights are repacked so that a
 * lane belongs to one of them, and blocks of 6 x 64 results stay in registers.
 */

#define AVX512 TARGET
#define INLINE512 AVX512 static inline __attribute__((always_inline))

enum { LANES = 16, PANEL = 64, TALL = 6, TALL4 = 3, FEW8 = 8 };

/* ---- lanes --------------------------------------------------------------------------------- */

/* Lane i of the result is the sum of v[i]'s lanes. */
INLINE512 __m512i sums_of_16(const __m512i *v) {
    __m512i two[8], four[4], eight[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        two[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                  _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        four[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(two[2 * i], two[2 * i + 1]),
                                   _mm512_unpackhi_epi64(two[2 * i], two[2 * i + 1]));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        eight[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(four[2 * i], four[2 * i + 1], 0x88),
                                    _mm512_shuffle_i32x4(four[2 * i], four[2 * i + 1], 0xdd));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(eight[0], eight[1], 0x88),
                            _mm512_shuffle_i32x4(eight[0], eight[1], 0xdd));
}

/* A square of 16 x 16 words, rows to columns. */
INLINE512 void transpose(__m512i *v) {
    __m512i a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        int from = i / 2 * 4 + i % 2;
        b[2 * i] = _mm512_unpacklo_epi64(a[from], a[from + 2]);
        b[2 * i + 1] = _mm512_unpackhi_epi64(a[from], a[from + 2]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        int from = i / 4 * 8 + i % 4;
        a[from] = _mm512_shuffle_i32x4(b[from], b[from + 4], 0x88);
        a[from + 4] = _mm512_shuffle_i32x4(b[from], b[from + 4], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        v[i] = _mm512_shuffle_i32x4(a[i], a[8 + i], 0x88);
        v[8 + i] = _mm512_shuffle_i32x4(a[i], a[8 + i], 0xdd);
    }
}

INLINE512 __mmask16 mask_of(int64_t count) {
    return count >= LANES ? 0xffff : (__mmask16)((1u << count) - 1);
}

INLINE512 __mmask64 mask64_of(int64_t count) { return count >= 64 ? ~0ull : (1ull << count) - 1; }

/* VNNI wants one side unsigned: weights get 128 added, 128 * (sum of x) is taken off at the end. */
INLINE512 __m512i unsign(__m512i w) { return _mm512_xor_si512(w, _mm512_set1_epi8(-128)); }

INLINE512 __m512i low_half(__m512i both) { return _mm512_and_si512(both, _mm512_set1_epi8(15)); }

INLINE512 __m512i high_half(__m512i both) {
    return _mm512_and_si512(_mm512_srli_epi16(both, 4), _mm512_set1_epi8(15));
}

INLINE512 __m512i four_bytes(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

/* (float)sum * (row_scale * scale) + bias for up to 16 rows of weights from n on. */
INLINE512 void store8(const Matrix *w, int64_t n, __mmask16 some, __m512i sum, float row_scale,
                      float *y) {
    __m512 scale = _mm512_maskz_loadu_ps(some, (const float *)w->scale + n);
    scale = _mm512_mul_ps(_mm512_set1_ps(row_scale), scale);
    __m512 result = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale);
    if (w->bias)
        result = _mm512_add_ps(result, _mm512_maskz_loadu_ps(some, w->bias + n));
    _mm512_mask_storeu_ps(y + n, some, result);
}

INLINE512 void store4(const Matrix *w, int64_t n, __mmask16 some, __m512 sum, float row_scale,
                      float *y) {
    __m512 result = _mm512_mul_ps(sum, _mm512_set1_ps(row_scale));
    if (w->bias)
        result = _mm512_add_ps(result, _mm512_maskz_loadu_ps(some, w->bias + n));
    _mm512_mask_storeu_ps(y + n, some, result);
}

/* Bytes, measured: far enough that memory answers before they are used. */
enum { SOON = 1 << 10, AHEAD = 16 << 10 };

/* Into the second cache: the first one's few open requests are left to the loads themselves. */
INLINE512 void fetch(const void *at) { _mm_prefetch((const char *)at, _MM_HINT_T1); }

/* ---- panels of 64 rows of weights ---------------------------------------------------------- */

/* `weights` holds for every 4 columns 4 bytes of row 0, 4 of row 1, ...; `scales` (4 bits) 64
 * floats for every group. */
typedef struct {
    const Matrix *w;
    const Rounded *x;
    uint8_t *weights;
    float *scales;
    int64_t n, count; /* the rows of weights */
    const uint8_t *soon; /* what the next panel is made of: fetched while this one is used, */
    int64_t soon_step;   /* two lines for every 4 columns, until it is 0 */
    float *y;
    int64_t stride;
} Panel;

INLINE512 void put_square(__m512i *square, uint8_t *at) {
    transpose(square);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        _mm512_store_si512(at + i * (4 * PANEL), square[i]);
}

AVX512 static void pack8(const Panel *p) {
    int64_t k = p->w->k;
    const int8_t *first = (const int8_t *)p->w->weight + p->n * k, *last = first + (p->count - 1) * k;
    for (int64_t r = 0; r < PANEL; r += LANES)
        for (int64_t i = 0; i < k; i += BLOCK) {
            __mmask64 some = mask64_of(k - i);
            __m512i square[LANES];
#pragma GCC unroll 16
            for (int j = 0; j < LANES; j++) {
                /* Rows behind the end repeat the last one; their results are not stored. */
                const int8_t *row = first + (r + j) * k;
                fetch(first + r * k + i * LANES + j * LINE + AHEAD);
                square[j] = unsign(_mm512_maskz_loadu_epi8(some, (row < last ? row : last) + i));
            }
            put_square(square, p->weights + i * PANEL + r * 4);
        }
}

/* Scales of 16 rows of weights, group after group: `stride` floats apart. */
AVX512 static void pack_scales(const Matrix *w, int64_t groups, int64_t n, int64_t last, float *to,
                               int64_t stride) {
    for (int64_t g = 0; g < groups; g += LANES) {
        __mmask16 some = mask_of(groups - g);
        __m512i square[LANES];
#pragma GCC unroll 16
        for (int j = 0; j < LANES; j++) {
            int64_t row = n + j < last ? n + j : last;
            const uint16_t *scale = (const uint16_t *)w->scale + row * groups + g;
            square[j] = _mm512_castps_si512(_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(some, scale)));
        }
        transpose(square);
#pragma GCC unroll 16
        for (int j = 0; j < LANES; j++)
            if (g + j < groups)
                _mm512_store_si512(to + (g + j) * stride, square[j]);
    }
}

AVX512 static void pack4(const Panel *p) {
    int64_t size = p->w->k / 2, last = p->n + p->count - 1;
    const uint8_t *weight = p->w->weight;
    for (int64_t r = 0; r < PANEL; r += LANES) {
        pack_scales(p->w, p->x->groups, p->n + r, last, p->scales + r, PANEL);
        for (int64_t i = 0; i < size; i += GROUP / 2) {
            __m512i square[LANES];
#pragma GCC unroll 16
            for (int j = 0; j < LANES; j++) {
                int64_t row = p->n + r + j < last ? p->n + r + j : last;
                fetch(weight + (p->n + r) * size + i * LANES + j * LINE + AHEAD);
                square[j] = _mm512_loadu_si512(weight + row * size + i);
            }
            transpose(square);
            uint8_t *at = p->weights + 2 * i * PANEL + r * 4;
#pragma GCC unroll 16
            for (int j = 0; j < LANES; j++) {
                _mm512_store_si512(at + j * (4 * PANEL), low_half(square[j]));
                _mm512_store_si512(at + (LANES + j) * (4 * PANEL), high_half(square[j]));
            }
        }
    }
}

INLINE512 void finish_block8(const Panel *p, int64_t m, __m512i a, __m512i b, __m512i c,
                             __m512i d) {
    const __m512i sum[4] = {a, b, c, d};
    __m512i offset = _mm512_set1_epi32(128 * p->x->sums[m]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        if (i * LANES < p->count)
            store8(p->w, p->n + i * LANES, mask_of(p->count - i * LANES),
                   _mm512_sub_epi32(sum[i], offset), p->x->scale[m], p->y + m * p->stride);
}

INLINE512 void finish_block4(const Panel *p, int64_t m, __m512 a, __m512 b, __m512 c, __m512 d) {
    const __m512 total[4] = {a, b, c, d};
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        if (i * LANES < p->count)
            store4(p->w, p->n + i * LANES, mask_of(p->count - i * LANES), total[i],
                   p->x->scale[m], p->y + m * p->stride);
}

/* ---- kernels for 1 to 6 rows of activations ------------------------------------------------ */

typedef struct {
    const int8_t *rows[4];
} Four;

typedef struct {
    const uint8_t *rows[LANES];
    const float *scales; /* LANES for each group */
} Sixteen;

#define ROWS 1
#define EACH(f) f(0)
#include "native_rows512.h"
#define ROWS 2
#define EACH(f) f(0) f(1)
#include "native_rows512.h"
#define ROWS 3
#define EACH(f) f(0) f(1) f(2)
#include "native_rows512.h"
#define ROWS 4
#define EACH(f) f(0) f(1) f(2) f(3)
#include "native_rows512.h"
#define ROWS 5
#define EACH(f) f(0) f(1) f(2) f(3) f(4)
#include "native_rows512.h"
#define ROWS 6
#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5)
#include "native_rows512.h"
#define ROWS 7
#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6)
#include "native_rows512.h"
#define ROWS 8
#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7)
#include "native_rows512.h"

typedef void (*Dot8)(const Four *w, int64_t k, const int8_t *x, int64_t step, __m512i *sums);
typedef void (*Dot4)(const Sixteen *w, const Rounded *x, const int8_t *value, __m512 *total);
typedef void (*BlockOf)(const Panel *p, int64_t m0);

static const Dot8 dot8_of[] = {NULL, dot8_1, dot8_2, dot8_3, dot8_4, dot8_5, dot8_6};
static const Dot4 dot4_of[] = {NULL,   dot4_1, dot4_2, dot4_3, dot4_4,
                               dot4_5, dot4_6, dot4_7, dot4_8};
static const BlockOf block8_of[] = {NULL,     block8_1, block8_2, block8_3,
                                    block8_4, block8_5, block8_6};
static const BlockOf block4_of[] = {NULL, block4_1, block4_2, block4_3};

/* ---- one row ------------------------------------------------------------------------------- */

/* Two rows of weights from far apart: two streams are read faster than one, and four chains of
 * additions do not wait for each other. */
AVX512 static void dot8_pair(const int8_t *w, const int8_t *v, int64_t k, const int8_t *x,
                             __m512i *sum_w, __m512i *sum_v) {
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 2 * BLOCK <= k; i += 2 * BLOCK) {
        fetch(w + i + SOON), fetch(w + i + SOON + LINE);
        fetch(v + i + SOON), fetch(v + i + SOON + LINE);
        __m512i first = _mm512_load_si512(x + i), second = _mm512_load_si512(x + i + BLOCK);
        a = _mm512_dpbusd_epi32(a, unsign(_mm512_loadu_si512(w + i)), first);
        b = _mm512_dpbusd_epi32(b, unsign(_mm512_loadu_si512(w + i + BLOCK)), second);
        c = _mm512_dpbusd_epi32(c, unsign(_mm512_loadu_si512(v + i)), first);
        d = _mm512_dpbusd_epi32(d, unsign(_mm512_loadu_si512(v + i + BLOCK)), second);
    }
    for (; i < k; i += BLOCK) {
        __mmask64 some = mask64_of(k - i);
        __m512i value = _mm512_load_si512(x + i);
        a = _mm512_dpbusd_epi32(a, unsign(_mm512_maskz_loadu_epi8(some, w + i)), value);
        c = _mm512_dpbusd_epi32(c, unsign(_mm512_maskz_loadu_epi8(some, v + i)), value);
    }
    *sum_w = _mm512_add_epi32(a, b);
    *sum_v = _mm512_add_epi32(c, d);
}

AVX512 static void finish8(const Matrix *w, const Rounded *x, int64_t m, int64_t n, int64_t count,
                           const __m512i *sums, float *y) {
    __m512i offset = _mm512_set1_epi32(128 * x->sums[m]);
    store8(w, n, mask_of(count), _mm512_sub_epi32(sums_of_16(sums), offset), x->scale[m], y);
}

AVX512 static void one8(const Matrix *w, const Rounded *x, Tile tile, float *y) {
    int64_t half = (tile.n1 - tile.n0 + 2 * LANES - 1) / (2 * LANES) * LANES, k = w->k;
    const int8_t *weight = (const int8_t *)w->weight, *values = values_of(x, 0);
    for (int64_t n = tile.n0; n < tile.n0 + half; n += LANES) {
        __m512i first[LANES], second[LANES];
        for (int64_t i = n; i < n + LANES; i++) {
            /* Rows behind the end repeat the last one; their results are not stored. */
            int64_t row = i < tile.n1 ? i : tile.n1 - 1;
            int64_t other = i + half < tile.n1 ? i + half : tile.n1 - 1;
            dot8_pair(weight + row * k, weight + other * k, k, values, first + i - n,
                      second + i - n);
        }
        finish8(w, x, 0, n, tile.n1 - n, first, y);
        if (n + half < tile.n1)
            finish8(w, x, 0, n + half, tile.n1 - n - half, second, y);
    }
}

/* Sum of one group of 4-bit weights, in lanes. */
INLINE512 __m512i dot4_group(const uint8_t *w, const int8_t *x) {
    fetch(w + SOON);
    __m512i both = _mm512_loadu_si512(w), sum = _mm512_setzero_si512();
    sum = _mm512_dpbusd_epi32(sum, low_half(both), _mm512_load_si512(x));
    return _mm512_dpbusd_epi32(sum, high_half(both), _mm512_load_si512(x + GROUP / 2));
}

INLINE512 __m512i sums_of_16_groups(const uint8_t *w, const int8_t *x) {
    __m512i sums[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        sums[i] = dot4_group(w + i * (GROUP / 2), x + i * GROUP);
    return sums_of_16(sums);
}

INLINE512 __m512i sums_of_groups(const uint8_t *w, const int8_t *x, int64_t count) {
    __m512i sums[LANES];
    for (int i = 0; i < LANES; i++)
        sums[i] = i < count ? dot4_group(w + i * (GROUP / 2), x + i * GROUP)
                            : _mm512_setzero_si512();
    return sums_of_16(sums);
}

/* One row of 4-bit weights: scaled[g] is the scaled sum of group g. */
AVX512 static void dot4_row(const Matrix *w, int64_t n, const Rounded *x, float *scaled) {
    const uint8_t *weight = (const uint8_t *)w->weight + n * (w->k / 2);
    const uint16_t *scale = (const uint16_t *)w->scale + n * x->groups;
    for (int64_t g = 0; g < x->groups; g += LANES) {
        int64_t count = x->groups - g;
        const uint8_t *at = weight + g * (GROUP / 2);
        const int8_t *value = x->values + g * GROUP;
        __m512i sum = count >= LANES ? sums_of_16_groups(at, value)
                                     : sums_of_groups(at, value, count);
        __mmask16 some = mask_of(count);
        __m512i offset = _mm512_slli_epi32(_mm512_maskz_loadu_epi32(some, x->partials + g), 3);
        __m512 factor = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(some, scale + g));
        __m512 value_of = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, offset));
        _mm512_storeu_ps(scaled + g, _mm512_mul_ps(value_of, factor));
    }
}

/* Groups are added one after the other, as in every set; lanes are 16 rows of weights. */
AVX512 static __m512 add_groups(const float *scaled, int64_t padded, int64_t groups) {
    __m512 total = _mm512_setzero_ps();
    for (int64_t g = 0; g < padded; g += LANES) {
        __m512i square[LANES];
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            square[i] = _mm512_loadu_si512(scaled + i * padded + g);
        transpose(square);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            if (g + i < groups)
                total = _mm512_add_ps(total, _mm512_castsi512_ps(square[i]));
    }
    return total;
}

AVX512 static void one4(const Matrix *w, const Rounded *x, Tile tile, float *y) {
    int64_t half = (tile.n1 - tile.n0 + 2 * LANES - 1) / (2 * LANES) * LANES;
    int64_t padded = (x->groups + LANES - 1) / LANES * LANES, last = tile.n1 - 1;
    float *first = (float *)reserve(&few_store, (size_t)(2 * LANES * padded) * sizeof(float));
    float *second = first + LANES * padded;
    for (int64_t n = tile.n0; n < tile.n0 + half; n += LANES) {
        for (int64_t i = 0; i < LANES; i++) {
            dot4_row(w, n + i < last ? n + i : last, x, first + i * padded);
            dot4_row(w, n + i + half < last ? n + i + half : last, x, second + i * padded);
        }
        store4(w, n, mask_of(tile.n1 - n), add_groups(first, padded, x->groups), x->scale[0], y);
        if (n + half < tile.n1)
            store4(w, n + half, mask_of(tile.n1 - n - half),
                   add_groups(second, padded, x->groups), x->scale[0], y);
    }
}

/* ---- products ------------------------------------------------------------------------------ */

/* Sums of 16 rows of weights with 2 to 8 rows of activations, four rows of weights at a time. */
AVX512 static void dot8_16(const Matrix *w, const Rounded *x, int64_t n, int64_t count, int rows,
                           __m512i *sums) {
    const int8_t *first = (const int8_t *)w->weight + n * w->k, *values = values_of(x, 0);
    int start = rows > TALL ? rows / 2 : 0; /* 7 and 8 go in two parts */
    for (int64_t i = 0; i < LANES; i += 4) {
        Four four;
        for (int64_t j = 0; j < 4; j++)
            four.rows[j] = first + (i + j < count ? i + j : count - 1) * w->k;
        dot8_of[rows - start](&four, w->k, values, x->set * BLOCK, sums + i);
        if (start)
            dot8_of[start](&four, w->k, values + (rows - start) * BLOCK, x->set * BLOCK,
                           sums + (rows - start) * LANES + i);
    }
}

AVX512 static void few8(const Matrix *w, const Rounded *x, Tile tile, float *y, int64_t stride) {
    __m512i sums[FEW8 * LANES];
    for (int64_t n = tile.n0; n < tile.n1; n += LANES) {
        int64_t count = tile.n1 - n < LANES ? tile.n1 - n : LANES;
        dot8_16(w, x, n, count, (int)x->rows, sums);
        for (int64_t m = 0; m < x->rows; m++)
            finish8(w, x, m, n, count, sums + m * LANES, y + m * stride);
    }
}

AVX512 static void few4(const Matrix *w, const Rounded *x, Tile tile, float *y, int64_t stride) {
    float *scales =
        (float *)reserve(&few_store, (size_t)(x->groups * LANES) * sizeof(float));
    for (int64_t n = tile.n0; n < tile.n1; n += LANES) {
        __m512 total[FEW8];
        Sixteen sixteen = {.scales = scales};
        for (int64_t i = n; i < n + LANES; i++)
            sixteen.rows[i - n] =
                (const uint8_t *)w->weight + (i < tile.n1 ? i : tile.n1 - 1) * (w->k / 2);
        pack_scales(w, x->groups, n, tile.n1 - 1, scales, LANES);
        dot4_of[x->rows](&sixteen, x, x->values, total);
        for (int64_t m = 0; m < x->rows; m++)
            store4(w, n, mask_of(tile.n1 - n), total[m], x->scale[m], y + m * stride);
    }
}

AVX512 static void many(const Matrix *w, const Rounded *x, Tile tile, float *y, int64_t stride) {
    size_t panel_size = (size_t)(x->stride * PANEL);
    size_t scales_size = (size_t)(x->groups * PANEL) * sizeof(float);
    char *next = reserve(&panel_store, panel_size + scales_size);
    Panel p = {.w = w, .x = x, .y = y, .stride = stride};
    p.weights = carve(&next, panel_size);
    p.scales = carve(&next, scales_size);
    const BlockOf *block_of = w->bits == 8 ? block8_of : block4_of;
    const int64_t tall = w->bits == 8 ? TALL : TALL4, size = w->k * w->bits / 8;
    for (p.n = tile.n0; p.n < tile.n1; p.n += PANEL) {
        const uint8_t *next = (const uint8_t *)w->weight + (p.n + PANEL) * size;
        const uint8_t *end = next + PANEL * size;
        p.count = tile.n1 - p.n < PANEL ? tile.n1 - p.n : PANEL;
        if (w->bits == 8)
            pack8(&p);
        else
            pack4(&p);
        for (int64_t m = tile.m0; m < tile.m1; m += tall) {
            p.soon_step = next < end ? 2 * LINE : 0;
            p.soon = next < end ? next : p.weights;
            block_of[tile.m1 - m < tall ? tile.m1 - m : tall](&p, m);
            next += x->stride / 4 * p.soon_step;
        }
    }
}

AVX512 static void product_avx512(const Matrix *w, const Rounded *x, Tile tile, float *y,
                                  int64_t stride) {
    if (w->bits == 8 && x->rows == 1)
        one8(w, x, tile, y);
    else if (w->bits == 8 && x->rows <= FEW8)
        few8(w, x, tile, y, stride);
    else if (w->bits == 4 && x->rows == 1)
        one4(w, x, tile, y);
    else if (w->bits == 4 && x->rows <= FEW8)
        few4(w, x, tile, y, stride);
    else
        many(w, x, tile, y, stride);
}
