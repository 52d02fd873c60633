/* Products with AVX-512 VNNI: 64 multiplications of an unsigned by a signed byte in one step.
 *
 * Few rows: a row of weights is read once, in order (the processor fetches one stream best), and
 * multiplied by all rows of activations. Many rows: 64 rows of weights are repacked so that a lane
 * belongs to one of them, and blocks of 6 x 64 results stay in registers.
 */

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,fma,f16c")))
#define INLINE512 AVX512 static inline __attribute__((always_inline))

enum { LANES = 16, PANEL = 64, TALL = 6, FEW8 = 8, FEW4 = 2 };

/* Lane i of the result is the sum of v[i]'s lanes. */
INLINE512 __m512i sums_of_16(const __m512i *v) {
    __m512i two[8], four[4], eight[2];
    for (int i = 0; i < 8; i++)
        two[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                  _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++)
        four[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(two[2 * i], two[2 * i + 1]),
                                   _mm512_unpackhi_epi64(two[2 * i], two[2 * i + 1]));
    for (int i = 0; i < 2; i++)
        eight[i] = _mm512_add_epi32(_mm512_shuffle_i32x4(four[2 * i], four[2 * i + 1], 0x88),
                                    _mm512_shuffle_i32x4(four[2 * i], four[2 * i + 1], 0xdd));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(eight[0], eight[1], 0x88),
                            _mm512_shuffle_i32x4(eight[0], eight[1], 0xdd));
}

/* A square of 16 x 16 words, rows to columns. */
INLINE512 void transpose(__m512i *v) {
    __m512i a[16], b[16];
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = _mm512_unpacklo_epi64(a[4 * i + j], a[4 * i + 2 + j]);
            b[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a[4 * i + j], a[4 * i + 2 + j]);
        }
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 2; i++) {
            a[8 * i + j] = _mm512_shuffle_i32x4(b[8 * i + j], b[8 * i + 4 + j], 0x88);
            a[8 * i + 4 + j] = _mm512_shuffle_i32x4(b[8 * i + j], b[8 * i + 4 + j], 0xdd);
        }
    for (int j = 0; j < 4; j++) {
        v[j] = _mm512_shuffle_i32x4(a[j], a[8 + j], 0x88);
        v[8 + j] = _mm512_shuffle_i32x4(a[j], a[8 + j], 0xdd);
        v[4 + j] = _mm512_shuffle_i32x4(a[4 + j], a[12 + j], 0x88);
        v[12 + j] = _mm512_shuffle_i32x4(a[4 + j], a[12 + j], 0xdd);
    }
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

INLINE512 __mmask16 mask_of(int64_t count) {
    return count >= LANES ? 0xffff : (__mmask16)((1u << count) - 1);
}

/* VNNI wants one side unsigned: weights get 128 added, 128 * (sum of x) is taken off at the end. */
INLINE512 __m512i unsign(__m512i w) { return _mm512_xor_si512(w, _mm512_set1_epi8(-128)); }

/* Sums of one row of 8-bit weights with `rows` rows of activations, 16 lanes each. */
INLINE512 void dot8_avx512(const int8_t *w, int64_t k, const int8_t *x, int64_t stride, int rows,
                           __m512i *sums) {
    /* Chains of dependent additions are as many as their latency, whatever the rows. */
    const int chains = rows == 1 ? 4 : rows < 4 ? 2 : 1;
    __m512i sum[FEW8][4];
    for (int m = 0; m < rows; m++)
        for (int c = 0; c < chains; c++)
            sum[m][c] = _mm512_setzero_si512();
    int64_t i = 0;
    for (; i + BLOCK * chains <= k; i += BLOCK * chains)
#pragma GCC unroll 4
        for (int c = 0; c < chains; c++) {
            __m512i weight = unsign(_mm512_loadu_si512(w + i + c * BLOCK));
#pragma GCC unroll 8
            for (int m = 0; m < rows; m++)
                sum[m][c] = _mm512_dpbusd_epi32(
                    sum[m][c], weight, _mm512_load_si512(x + m * stride + i + c * BLOCK));
        }
    for (; i < k; i += BLOCK) {
        __mmask64 some = k - i >= BLOCK ? ~0ull : (1ull << (k - i)) - 1;
        __m512i weight = unsign(_mm512_maskz_loadu_epi8(some, w + i));
#pragma GCC unroll 8
        for (int m = 0; m < rows; m++)
            sum[m][0] =
                _mm512_dpbusd_epi32(sum[m][0], weight, _mm512_load_si512(x + m * stride + i));
    }
    for (int m = 0; m < rows; m++) {
        for (int c = 1; c < chains; c++)
            sum[m][0] = _mm512_add_epi32(sum[m][0], sum[m][c]);
        sums[m * LANES] = sum[m][0];
    }
}

INLINE512 void few8_rows(const Matrix *w, const Rounded *x, Tile tile, int rows, float *y,
                         int64_t stride) {
    __m512i sums[FEW8 * LANES];
    const int8_t *values = x->values + tile.m0 * x->stride;
    for (int64_t n = tile.n0; n < tile.n1; n += LANES) {
        int64_t count = tile.n1 - n < LANES ? tile.n1 - n : LANES;
        const int8_t *weight = (const int8_t *)w->weight + n * w->k;
        for (int64_t i = 0; i < count; i++)
            dot8_avx512(weight + i * w->k, w->k, values, x->stride, rows, sums + i);
        for (int64_t i = count; i < LANES; i++)
            for (int m = 0; m < rows; m++)
                sums[m * LANES + i] = _mm512_setzero_si512();
        for (int64_t m = 0; m < rows; m++) {
            __m512i offset = _mm512_set1_epi32(128 * x->sums[tile.m0 + m]);
            store8(w, n, mask_of(count),
                   _mm512_sub_epi32(sums_of_16(sums + m * LANES), offset), x->scale[tile.m0 + m],
                   y + (tile.m0 + m) * stride);
        }
    }
}

INLINE512 __m512i low_half(__m512i both) {
    return _mm512_and_si512(both, _mm512_set1_epi8(15));
}

INLINE512 __m512i high_half(__m512i both) {
    return _mm512_and_si512(_mm512_srli_epi16(both, 4), _mm512_set1_epi8(15));
}

INLINE512 __m512 halves_to_floats(__mmask16 some, const uint16_t *halves) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(some, halves));
}

/* Scaled sums of up to 16 groups of one row of 4-bit weights: lane g is group g. */
INLINE512 void dot4_avx512(const uint8_t *w, const uint16_t *scale, const Rounded *x, int64_t m,
                           int64_t g, int rows, float *scaled, int64_t scaled_stride) {
    __m512i sums[FEW4 * LANES];
    int64_t count = x->groups - g < LANES ? x->groups - g : LANES;
    const int8_t *values = x->values + m * x->stride + g * GROUP;
#pragma GCC unroll 16
    for (int64_t i = 0; i < LANES; i++) {
        if (i >= count) {
            for (int r = 0; r < rows; r++)
                sums[r * LANES + i] = _mm512_setzero_si512();
            continue;
        }
        __m512i both = _mm512_loadu_si512(w + (g + i) * (GROUP / 2));
        __m512i low = low_half(both), high = high_half(both);
#pragma GCC unroll 2
        for (int r = 0; r < rows; r++) {
            const int8_t *at = values + r * x->stride + i * GROUP;
            __m512i sum =
                _mm512_dpbusd_epi32(_mm512_setzero_si512(), low, _mm512_load_si512(at));
            sums[r * LANES + i] = _mm512_dpbusd_epi32(sum, high, _mm512_load_si512(at + GROUP / 2));
        }
    }
    __m512 factor = halves_to_floats(mask_of(count), scale + g);
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++) {
        const int32_t *partials = x->partials + (m + r) * x->groups + g;
        __m512i eight = _mm512_slli_epi32(_mm512_maskz_loadu_epi32(mask_of(count), partials), 3);
        __m512i sum = _mm512_sub_epi32(sums_of_16(sums + r * LANES), eight);
        _mm512_storeu_ps(scaled + r * scaled_stride,
                         _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor));
    }
}

/* Groups are added one after the other, as in every set; lanes are 16 rows of weights. */
INLINE512 __m512 add_groups(const float *scaled, int64_t padded, int64_t groups) {
    __m512 total = _mm512_setzero_ps();
    for (int64_t g = 0; g < padded; g += LANES) {
        __m512i square[LANES];
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

INLINE512 void few4_rows(const Matrix *w, const Rounded *x, Tile tile, int rows, float *y,
                         int64_t stride) {
    int64_t padded = (x->groups + LANES - 1) / LANES * LANES;
    float *scaled = (float *)reserve(&few_store, (size_t)(rows * LANES * padded) * sizeof(float));
    for (int64_t n = tile.n0; n < tile.n1; n += LANES) {
        int64_t count = tile.n1 - n < LANES ? tile.n1 - n : LANES;
        for (int64_t i = 0; i < count; i++)
            for (int64_t g = 0; g < x->groups; g += LANES)
                dot4_avx512((const uint8_t *)w->weight + (n + i) * (w->k / 2),
                            (const uint16_t *)w->scale + (n + i) * x->groups, x, tile.m0, g, rows,
                            scaled + i * padded + g, LANES * padded);
        for (int64_t r = 0; r < rows; r++)
            store4(w, n, mask_of(count),
                   add_groups(scaled + r * LANES * padded, padded, x->groups),
                   x->scale[tile.m0 + r], y + (tile.m0 + r) * stride);
    }
}

AVX512 static void few_avx512(const Matrix *w, const Rounded *x, Tile tile, float *y,
                              int64_t stride) {
    if (w->bits == 4) {
        switch (tile.m1 - tile.m0) {
        case 1: few4_rows(w, x, tile, 1, y, stride); break;
        default: few4_rows(w, x, tile, 2, y, stride);
        }
        return;
    }
    switch (tile.m1 - tile.m0) {
    case 1: few8_rows(w, x, tile, 1, y, stride); break;
    case 2: few8_rows(w, x, tile, 2, y, stride); break;
    case 3: few8_rows(w, x, tile, 3, y, stride); break;
    case 4: few8_rows(w, x, tile, 4, y, stride); break;
    case 5: few8_rows(w, x, tile, 5, y, stride); break;
    case 6: few8_rows(w, x, tile, 6, y, stride); break;
    case 7: few8_rows(w, x, tile, 7, y, stride); break;
    default: few8_rows(w, x, tile, 8, y, stride);
    }
}

/* Panel of 64 rows of weights: for every 4 columns, 4 bytes of row 0, 4 of row 1, ... */
INLINE512 void put_square(__m512i *square, uint8_t *panel) {
    transpose(square);
    for (int i = 0; i < LANES; i++)
        _mm512_store_si512(panel + i * (4 * PANEL), square[i]);
}

AVX512 static void pack8(const Matrix *w, int64_t n, int64_t count, uint8_t *panel) {
    for (int64_t r = 0; r < PANEL; r += LANES)
        for (int64_t i = 0; i < w->k; i += BLOCK) {
            __mmask64 some = w->k - i >= BLOCK ? ~0ull : (1ull << (w->k - i)) - 1;
            __m512i square[LANES];
            for (int j = 0; j < LANES; j++) {
                const int8_t *at = (const int8_t *)w->weight + (n + r + j) * w->k + i;
                square[j] = r + j < count ? unsign(_mm512_maskz_loadu_epi8(some, at))
                                          : _mm512_setzero_si512();
            }
            put_square(square, panel + i * PANEL + r * 4);
        }
}

AVX512 static void pack4(const Matrix *w, int64_t n, int64_t count, uint8_t *panel) {
    for (int64_t r = 0; r < PANEL; r += LANES)
        for (int64_t i = 0; i < w->k; i += GROUP) {
            __m512i low[LANES], high[LANES];
            for (int j = 0; j < LANES; j++) {
                const uint8_t *at = (const uint8_t *)w->weight + ((n + r + j) * w->k + i) / 2;
                __m512i both =
                    r + j < count ? _mm512_loadu_si512(at) : _mm512_setzero_si512();
                low[j] = low_half(both);
                high[j] = high_half(both);
            }
            put_square(low, panel + i * PANEL + r * 4);
            put_square(high, panel + (i + GROUP / 2) * PANEL + r * 4);
        }
}

/* Scales of a panel, group after group: 64 floats each. */
AVX512 static void pack_scales(const Matrix *w, int64_t n, int64_t count, int64_t groups,
                               float *scales) {
    for (int64_t r = 0; r < PANEL; r++)
        for (int64_t g = 0; g < groups; g++)
            scales[g * PANEL + r] =
                r < count ? _cvtsh_ss(((const uint16_t *)w->scale)[(n + r) * groups + g]) : 0.0f;
}

/* `rows` x 64 sums over columns i0..i1 of a panel. */
INLINE512 void block_sums(const uint8_t *panel, const int8_t *x, int64_t stride, int64_t i0,
                          int64_t i1, int rows, __m512i sum[TALL][4]) {
    for (int m = 0; m < rows; m++)
        for (int c = 0; c < 4; c++)
            sum[m][c] = _mm512_setzero_si512();
    for (int64_t i = i0; i < i1; i += 4) {
        const uint8_t *at = panel + i * PANEL;
        __m512i w0 = _mm512_load_si512(at), w1 = _mm512_load_si512(at + 64);
        __m512i w2 = _mm512_load_si512(at + 128), w3 = _mm512_load_si512(at + 192);
#pragma GCC unroll 6
        for (int m = 0; m < rows; m++) {
            int32_t four;
            memcpy(&four, x + m * stride + i, sizeof four);
            __m512i value = _mm512_set1_epi32(four);
            sum[m][0] = _mm512_dpbusd_epi32(sum[m][0], w0, value);
            sum[m][1] = _mm512_dpbusd_epi32(sum[m][1], w1, value);
            sum[m][2] = _mm512_dpbusd_epi32(sum[m][2], w2, value);
            sum[m][3] = _mm512_dpbusd_epi32(sum[m][3], w3, value);
        }
    }
}

/* What a block of results needs beside the panel. */
typedef struct {
    const Matrix *w;
    const Rounded *x;
    const uint8_t *panel;
    const float *scales;
    int64_t n, count;
    float *y;
    int64_t stride;
} Panel;

INLINE512 void block8(const Panel *p, int64_t m0, int rows) {
    __m512i sum[TALL][4];
    const Rounded *x = p->x;
    block_sums(p->panel, x->values + m0 * x->stride, x->stride, 0, (x->k + 3) / 4 * 4, rows, sum);
    for (int m = 0; m < rows; m++) {
        __m512i offset = _mm512_set1_epi32(128 * x->sums[m0 + m]);
        for (int c = 0; c < 4; c++)
            if (c * LANES < p->count)
                store8(p->w, p->n + c * LANES, mask_of(p->count - c * LANES),
                       _mm512_sub_epi32(sum[m][c], offset), x->scale[m0 + m],
                       p->y + (m0 + m) * p->stride);
    }
}

INLINE512 void block4(const Panel *p, int64_t m0, int rows) {
    __m512i sum[TALL][4];
    __m512 total[TALL][4]; /* more than there are registers: a group's end goes through memory */
    const Rounded *x = p->x;
    for (int m = 0; m < rows; m++)
        for (int c = 0; c < 4; c++)
            total[m][c] = _mm512_setzero_ps();
    for (int64_t g = 0; g < x->groups; g++) {
        block_sums(p->panel, x->values + m0 * x->stride, x->stride, g * GROUP, (g + 1) * GROUP,
                   rows, sum);
#pragma GCC unroll 6
        for (int m = 0; m < rows; m++) {
            __m512i eight = _mm512_set1_epi32(8 * x->partials[(m0 + m) * x->groups + g]);
#pragma GCC unroll 4
            for (int c = 0; c < 4; c++) {
                __m512 value = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum[m][c], eight));
                __m512 scale = _mm512_load_ps(p->scales + g * PANEL + c * LANES);
                total[m][c] = _mm512_add_ps(total[m][c], _mm512_mul_ps(value, scale));
            }
        }
    }
    for (int m = 0; m < rows; m++)
        for (int c = 0; c < 4; c++)
            if (c * LANES < p->count)
                store4(p->w, p->n + c * LANES, mask_of(p->count - c * LANES), total[m][c],
                       x->scale[m0 + m], p->y + (m0 + m) * p->stride);
}

INLINE512 void block(const Panel *p, int64_t m0, int rows) {
    if (p->w->bits == 8)
        block8(p, m0, rows);
    else
        block4(p, m0, rows);
}

AVX512 static void blocks(const Panel *p, int64_t m0, int64_t m1) {
    for (; m0 + TALL <= m1; m0 += TALL)
        block(p, m0, TALL);
    switch (m1 - m0) {
    case 5: block(p, m0, 5); break;
    case 4: block(p, m0, 4); break;
    case 3: block(p, m0, 3); break;
    case 2: block(p, m0, 2); break;
    case 1: block(p, m0, 1); break;
    default: break;
    }
}

AVX512 static void many_avx512(const Matrix *w, const Rounded *x, Tile tile, float *y,
                               int64_t stride) {
    size_t panel_size = (size_t)(x->stride * PANEL);
    size_t scales_size = (size_t)(x->groups * PANEL) * sizeof(float);
    char *next = reserve(&panel_store, panel_size + scales_size);
    uint8_t *panel = carve(&next, panel_size);
    float *scales = carve(&next, scales_size);
    for (int64_t n = tile.n0; n < tile.n1; n += PANEL) {
        int64_t count = tile.n1 - n < PANEL ? tile.n1 - n : PANEL;
        if (w->bits == 8) {
            pack8(w, n, count, panel);
        } else {
            pack4(w, n, count, panel);
            pack_scales(w, n, count, x->groups, scales);
        }
        Panel p = {w, x, panel, scales, n, count, y, stride};
        blocks(&p, tile.m0, tile.m1);
    }
}

AVX512 static void product_avx512(const Matrix *w, const Rounded *x, Tile tile, float *y,
                                  int64_t stride) {
    if (tile.m1 - tile.m0 <= (w->bits == 8 ? FEW8 : FEW4))
        few_avx512(w, x, tile, y, stride);
    else
        many_avx512(w, x, tile, y, stride);
}
