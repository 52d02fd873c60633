/* Products with AVX2: multiplications of bytes whose 16-bit sums cannot overflow, so all is exact. */

#define AVX2 __attribute__((target("avx2,fma,f16c")))

AVX2 static inline int32_t sum_avx2(__m256i v) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
}

/* |w| times x with w's sign: 2 * 128 * 127 fits 16 bits, where w + 128 times x would not. */
AVX2 static inline __m256i dot32_avx2(__m256i sum, __m256i w, __m256i x) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

AVX2 static inline __m256i load_avx2(const void *p) { return _mm256_loadu_si256(p); }

/* One row of weights times `rows` rows of activations. */
AVX2 static inline __attribute__((always_inline)) void
dot8_avx2(const int8_t *w, const int8_t *x, int64_t stride, int64_t k, int rows, int32_t *sums) {
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                      _mm256_setzero_si256()};
    int64_t i = 0;
    for (; i + 32 <= k; i += 32) {
        __m256i weight = load_avx2(w + i);
        for (int m = 0; m < rows; m++)
            sum[m] = dot32_avx2(sum[m], weight, load_avx2(x + m * stride + i));
    }
    if (i < k) { /* the row's end is copied: what lies behind it may be no memory of ours */
        int8_t end[32] = {0};
        memcpy(end, w + i, (size_t)(k - i));
        for (int m = 0; m < rows; m++)
            sum[m] = dot32_avx2(sum[m], load_avx2(end), load_avx2(x + m * stride + i));
    }
    for (int m = 0; m < rows; m++)
        sums[m] = sum_avx2(sum[m]);
}

/* A group of 4-bit weights: four products of at most 2 * 15 * 127 still fit 16 bits. */
AVX2 static inline int32_t dot4_avx2(const uint8_t *w, const int8_t *x) {
    const __m256i low = _mm256_set1_epi8(15);
    __m256i pairs = _mm256_setzero_si256();
    for (int half = 0; half < 2; half++) {
        __m256i both = load_avx2(w + 32 * half);
        __m256i first = _mm256_and_si256(both, low);
        __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        const int8_t *at = x + 32 * half;
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(first, load_avx2(at)));
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(second, load_avx2(at + GROUP / 2)));
    }
    return sum_avx2(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

AVX2 static float row4_avx2(const Matrix *w, const Rounded *x, int64_t m, int64_t n) {
    const uint8_t *weight = (const uint8_t *)w->weight + n * (w->k / 2);
    const uint16_t *scale = (const uint16_t *)w->scale + n * x->groups;
    const int8_t *values = x->values + m * x->stride;
    float total = 0;
    for (int64_t g = 0; g < x->groups; g++) {
        int32_t sum = dot4_avx2(weight + g * (GROUP / 2), values + g * GROUP);
        total += (float)(sum - 8 * x->partials[m * x->groups + g]) * _cvtsh_ss(scale[g]);
    }
    return total;
}

AVX2 static void row8_avx2(const Matrix *w, const Rounded *x, int64_t m, int64_t n, int rows,
                           float *y, int64_t stride) {
    const int8_t *weight = (const int8_t *)w->weight + n * w->k;
    const int8_t *values = x->values + m * x->stride;
    int32_t sums[4];
    if (rows == 4)
        dot8_avx2(weight, values, x->stride, w->k, 4, sums);
    else
        for (int i = 0; i < rows; i++)
            dot8_avx2(weight, values + i * x->stride, x->stride, w->k, 1, sums + i);
    for (int i = 0; i < rows; i++)
        y[(m + i) * stride + n] =
            finish8_avx2(sums[i], x->scale[m + i], ((const float *)w->scale)[n],
                         w->bias ? w->bias + n : NULL);
}

AVX2 static void product_avx2(const Matrix *w, const Rounded *x, Tile tile, float *y,
                              int64_t stride) {
    for (int64_t n = tile.n0; n < tile.n1; n++)
        for (int64_t m = tile.m0; m < tile.m1; m += 4) {
            int rows = tile.m1 - m < 4 ? (int)(tile.m1 - m) : 4;
            if (w->bits == 8)
                row8_avx2(w, x, m, n, rows, y, stride);
            else
                for (int i = 0; i < rows; i++)
                    y[(m + i) * stride + n] =
                        finish4_avx2(row4_avx2(w, x, m + i, n), x->scale[m + i],
                                     w->bias ? w->bias + n : NULL);
        }
}
