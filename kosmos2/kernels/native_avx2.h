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

AVX2 static int32_t row8_avx2(const Matrix *w, const Rounded *x, int64_t m, int64_t n) {
    const int8_t *weight = (const int8_t *)w->weight + n * w->k, *block = values_of(x, m);
    __m256i first = _mm256_setzero_si256(), second = _mm256_setzero_si256();
    int64_t i = 0;
    for (; i + BLOCK <= w->k; i += BLOCK, block += x->set * BLOCK) {
        first = dot32_avx2(first, load_avx2(weight + i), load_avx2(block));
        second = dot32_avx2(second, load_avx2(weight + i + 32), load_avx2(block + 32));
    }
    if (i < w->k) { /* the row's end is copied: what lies behind it may be no memory of ours */
        int8_t end[BLOCK] = {0};
        memcpy(end, weight + i, (size_t)(w->k - i));
        first = dot32_avx2(first, load_avx2(end), load_avx2(block));
        second = dot32_avx2(second, load_avx2(end + 32), load_avx2(block + 32));
    }
    return sum_avx2(_mm256_add_epi32(first, second));
}

/* 32 bytes of 4-bit weights: two products of at most 2 * 15 * 127 each fit 16 bits, twice. */
AVX2 static inline __m256i pairs_avx2(const uint8_t *w, const int8_t *low, const int8_t *high) {
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i both = load_avx2(w), shifted = _mm256_srli_epi16(both, 4);
    return _mm256_add_epi16(
        _mm256_maddubs_epi16(_mm256_and_si256(both, mask), load_avx2(low)),
        _mm256_maddubs_epi16(_mm256_and_si256(shifted, mask), load_avx2(high)));
}

AVX2 static float row4_avx2(const Matrix *w, const Rounded *x, int64_t m, int64_t n) {
    const uint8_t *weight = (const uint8_t *)w->weight + n * (w->k / 2);
    const uint16_t *scale = (const uint16_t *)w->scale + n * x->groups;
    const int8_t *low = values_of(x, m);
    float total = 0;
    for (int64_t g = 0; g < x->groups; g++, weight += GROUP / 2, low += 2 * x->set * BLOCK) {
        const int8_t *high = low + x->set * BLOCK;
        __m256i pairs = _mm256_add_epi16(pairs_avx2(weight, low, high),
                                         pairs_avx2(weight + 32, low + 32, high + 32));
        int32_t sum = sum_avx2(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        total += (float)(sum - 8 * x->partials[m * x->groups + g]) * _cvtsh_ss(scale[g]);
    }
    return total;
}

AVX2 static void product_avx2(const Matrix *w, const Rounded *x, Tile tile, float *y,
                              int64_t stride) {
    for (int64_t n = tile.n0; n < tile.n1; n++) {
        const float *bias = w->bias ? w->bias + n : NULL;
        for (int64_t m = tile.m0; m < tile.m1; m++)
            y[m * stride + n] =
                w->bits == 8 ? finish8_avx2(row8_avx2(w, x, m, n), x->scale[m],
                                            ((const float *)w->scale)[n], bias)
                             : finish4_avx2(row4_avx2(w, x, m, n), x->scale[m], bias);
    }
}
