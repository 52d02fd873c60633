/* Products with AVX512-BF16: weights in panels of 64 rows, activations rounded to bf16.
 *
 * A panel holds for every two columns those two numbers of row 0, of row 1, ..., so that a lane
 * belongs to a row of weights. A sum goes through the columns in order, two at a time, whatever rows
 * and threads there are: a row's result never depends on the rows beside it.
 */

#define BF16                                                                                       \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,fma,f16c")))

enum {
    PAIRS = 16,           /* of columns in a block of activations */
    WEIGHTS16 = PAIRS * 4 * PANEL, /* bytes of a panel that meet one block */
    DEEP16 = 32,          /* blocks at a time: 128 KB of weights stay in the second cache */
    TALL16 = 43 * TALL    /* rows at a time: a picture's patches */
};

/* What one call of a kernel reads. */
typedef struct {
    const char *weights;
    int64_t blocks, step; /* of activations; bytes from one to the next */
    const char *soon;     /* what will be read next: fetched meanwhile, up to 4 lines a pair */
    int64_t soon_step, spread;
} Block16;

#define ROWS 1
#define EACH(f) f(0)
#include "native_rows16.h"
#define ROWS 2
#define EACH(f) f(0) f(1)
#include "native_rows16.h"
#define ROWS 3
#define EACH(f) f(0) f(1) f(2)
#include "native_rows16.h"
#define ROWS 4
#define EACH(f) f(0) f(1) f(2) f(3)
#include "native_rows16.h"
#define ROWS 5
#define EACH(f) f(0) f(1) f(2) f(3) f(4)
#include "native_rows16.h"
#define ROWS 6
#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5)
#include "native_rows16.h"

typedef void (*Block16Of)(const Block16 *p, const int8_t *x, const float *from,
                          int64_t from_stride, float *to, int64_t to_stride);

static const Block16Of block16_of[] = {NULL,      block16_1, block16_2, block16_3,
                                       block16_4, block16_5, block16_6};

/* Numbers [first, first + count) of a row, count a multiple of LANES unless they are its last;
 * behind the last come zeros. */
BF16 static void round_part16(const float *x, const Rounded *out, int64_t row, int64_t first,
                              int64_t count) {
    int8_t *block = values_of(out, row) + first / 32 * out->set * BLOCK + first % 32 * 2;
    for (int64_t i = 0; i < count; i += LANES) {
        __m512 part = _mm512_maskz_loadu_ps(mask_of(count - i), x + i);
        _mm256_store_si256((__m256i *)block, (__m256i)_mm512_cvtneps_pbh(part));
        block += (first + i) % 32 ? out->set * BLOCK - 32 : 32;
    }
    if (first + count == out->k && (out->k + LANES - 1) / LANES % 2)
        memset(block, 0, BLOCK / 2);
}

static void round_row16(const float *x, const Rounded *out, int64_t row) {
    round_part16(x, out, row, 0, out->k);
}

/* One panel times rows m0 .. m1; y is where row 0 begins, columns count from this panel's. */
BF16 static void panel16(const char *weights, const Rounded *x, int64_t m0, int64_t m1,
                         const float *bias, float *y, int64_t stride) {
    int64_t blocks = x->stride / BLOCK, sets = (m1 - m0 + x->set - 1) / x->set;
    for (int64_t b = 0; b < blocks; b += DEEP16) {
        Block16 p = {.weights = weights + b * WEIGHTS16, .step = x->set * BLOCK};
        p.blocks = blocks - b < DEEP16 ? blocks - b : DEEP16;
        const char *soon = p.weights + p.blocks * WEIGHTS16, *end = soon + p.blocks * WEIGHTS16;
        int64_t lines = sets < 4 ? 4 : 1; /* of the next weights for each of these pairs */
        for (int64_t m = m0; m < m1; m += x->set) {
            int fetches = soon < end;
            p.soon = fetches ? soon : p.weights;
            p.soon_step = fetches ? lines * LINE : 0;
            p.spread = fetches && lines > 1 ? LINE : 0;
            soon += p.blocks * PAIRS * lines * LINE;
            block16_of[m1 - m < x->set ? m1 - m : x->set](
                &p, values_of(x, m) + b * p.step, b ? y + m * stride : bias, b ? stride : 0,
                y + m * stride, stride);
        }
    }
}

BF16 static void product_bf16(const Matrix *w, const Rounded *x, Tile tile, float *y,
                              int64_t stride) {
    int64_t panel_size = x->stride / BLOCK * WEIGHTS16;
    float *sums = (float *)reserve(&panel_store, (TALL16 + 1) * PANEL * sizeof(float));
    float *bias = sums + TALL16 * PANEL;
    for (int64_t n = tile.n0; n < tile.n1; n += PANEL) {
        const char *panel = (const char *)w->weight + n / PANEL * panel_size;
        int64_t count = w->n - n < PANEL ? w->n - n : PANEL;
        memset(bias, 0, PANEL * sizeof(float));
        if (w->bias)
            memcpy(bias, w->bias + n, (size_t)count * sizeof(float));
        for (int64_t m0 = tile.m0; m0 < tile.m1; m0 += TALL16) {
            int64_t m1 = m0 + TALL16 < tile.m1 ? m0 + TALL16 : tile.m1;
            if (count == PANEL) {
                panel16(panel, x, m0, m1, bias, y + n, stride);
                continue;
            }
            panel16(panel, x, m0, m1, bias, sums - m0 * PANEL, PANEL);
            for (int64_t m = m0; m < m1; m++)
                memcpy(y + m * stride + n, sums + (m - m0) * PANEL, (size_t)count * sizeof(float));
        }
    }
}
