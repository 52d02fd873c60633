/* AVX-512 products for exactly ROWS rows of activations; included once for each number of rows.
 *
 * EACH(f) is f(0) f(1) ... f(ROWS - 1). Sums have names, for compilers put arrays into memory: in
 * row m, am bm cm dm belong to four rows of weights, or to four times 16 of them.
 */

#define NAMED_(x, rows) x##_##rows
#define NAMED(x, rows) NAMED_(x, rows)
#define ROWED(x) NAMED(x, ROWS)

#define ZERO(m)                                                                                    \
    __m512i a##m = _mm512_setzero_si512(), b##m = a##m, c##m = a##m, d##m = a##m;
#define MULTIPLY(m, value)                                                                         \
    a##m = _mm512_dpbusd_epi32(a##m, w0, value);                                                   \
    b##m = _mm512_dpbusd_epi32(b##m, w1, value);                                                   \
    c##m = _mm512_dpbusd_epi32(c##m, w2, value);                                                   \
    d##m = _mm512_dpbusd_epi32(d##m, w3, value);

#if ROWS <= 6
/* Four rows of 8-bit weights. The lanes' sums of activation row m go to sums[m * LANES]. */
AVX512 static void ROWED(dot8)(const Four *w, int64_t k, const int8_t *x, int64_t step,
                               __m512i *sums) {
    EACH(ZERO)
    for (int64_t i = 0; i < k; i += BLOCK, x += step) {
        __mmask64 some = mask64_of(k - i);
        for (int j = 0; j < 4; j++)
            fetch(w->rows[0] + 4 * i + AHEAD + j * LINE);
        __m512i w0 = unsign(_mm512_maskz_loadu_epi8(some, w->rows[0] + i));
        __m512i w1 = unsign(_mm512_maskz_loadu_epi8(some, w->rows[1] + i));
        __m512i w2 = unsign(_mm512_maskz_loadu_epi8(some, w->rows[2] + i));
        __m512i w3 = unsign(_mm512_maskz_loadu_epi8(some, w->rows[3] + i));
#define ROW(m)                                                                                     \
    {                                                                                              \
        __m512i value = _mm512_load_si512(x + m * BLOCK);                                          \
        MULTIPLY(m, value)                                                                         \
    }
        EACH(ROW)
#undef ROW
    }
#define ROW(m)                                                                                     \
    sums[m * LANES] = a##m, sums[m * LANES + 1] = b##m;                                            \
    sums[m * LANES + 2] = c##m, sums[m * LANES + 3] = d##m;
    EACH(ROW)
#undef ROW
}

/* 64 rows of weights in a panel, all columns: 8 bits. */
AVX512 static void ROWED(block8)(const Panel *p, int64_t m0) {
    const int8_t *x = values_of(p->x, m0);
    const uint8_t *at = p->weights, *soon = p->soon;
    EACH(ZERO)
    for (int64_t i = 0; i < p->x->k; i += BLOCK, x += p->x->set * BLOCK)
        for (int j = 0; j < BLOCK; j += 4, at += 4 * PANEL) {
            fetch(soon), fetch(soon + LINE), soon += p->soon_step;
            __m512i w0 = _mm512_load_si512(at), w1 = _mm512_load_si512(at + 64);
            __m512i w2 = _mm512_load_si512(at + 128), w3 = _mm512_load_si512(at + 192);
#define ROW(m)                                                                                     \
    {                                                                                              \
        __m512i value = four_bytes(x + m * BLOCK + j);                                             \
        MULTIPLY(m, value)                                                                         \
    }
            EACH(ROW)
#undef ROW
        }
#define ROW(m) finish_block8(p, m0 + m, a##m, b##m, c##m, d##m);
    EACH(ROW)
#undef ROW
}

#endif

#if ROWS <= 3
/* 4 bits: at a group's end its sums are scaled and added to floats, in registers too. */
AVX512 static void ROWED(block4)(const Panel *p, int64_t m0) {
    const int8_t *x = values_of(p->x, m0);
    const uint8_t *at = p->weights, *soon = p->soon;
    const float *scale = p->scales;
#define ROW(m) __m512 e##m = _mm512_setzero_ps(), f##m = e##m, g##m = e##m, h##m = e##m;
    EACH(ROW)
#undef ROW
    for (int64_t group = 0; group < p->x->groups; group++, scale += PANEL) {
#define ROW(m)                                                                                     \
    __m512i a##m = _mm512_set1_epi32(-8 * p->x->partials[(m0 + m) * p->x->groups + group]);        \
    __m512i b##m = a##m, c##m = a##m, d##m = a##m;
        EACH(ROW)
#undef ROW
        for (int half = 0; half < 2; half++, x += p->x->set * BLOCK)
            for (int j = 0; j < BLOCK; j += 4, at += 4 * PANEL) {
                fetch(soon), fetch(soon + LINE), soon += p->soon_step;
                __m512i w0 = _mm512_load_si512(at), w1 = _mm512_load_si512(at + 64);
                __m512i w2 = _mm512_load_si512(at + 128), w3 = _mm512_load_si512(at + 192);
#define ROW(m)                                                                                     \
    {                                                                                              \
        __m512i value = four_bytes(x + m * BLOCK + j);                                             \
        MULTIPLY(m, value)                                                                         \
    }
                EACH(ROW)
#undef ROW
            }
        __m512 s0 = _mm512_load_ps(scale), s1 = _mm512_load_ps(scale + LANES);
        __m512 s2 = _mm512_load_ps(scale + 2 * LANES), s3 = _mm512_load_ps(scale + 3 * LANES);
#define ROW(m)                                                                                     \
    e##m = _mm512_add_ps(e##m, _mm512_mul_ps(_mm512_cvtepi32_ps(a##m), s0));                       \
    f##m = _mm512_add_ps(f##m, _mm512_mul_ps(_mm512_cvtepi32_ps(b##m), s1));                       \
    g##m = _mm512_add_ps(g##m, _mm512_mul_ps(_mm512_cvtepi32_ps(c##m), s2));                       \
    h##m = _mm512_add_ps(h##m, _mm512_mul_ps(_mm512_cvtepi32_ps(d##m), s3));
        EACH(ROW)
#undef ROW
    }
#define ROW(m) finish_block4(p, m0 + m, e##m, f##m, g##m, h##m);
    EACH(ROW)
#undef ROW
}
#endif

/* 16 rows of 4-bit weights, each lane its own: a group's 64 bytes of all 16 are transposed in
 * registers, so that lanes need not be summed. */
AVX512 static void ROWED(dot4)(const Sixteen *w, const Rounded *x, const int8_t *value, __m512 *total) {
    for (int m = 0; m < ROWS; m++)
        total[m] = _mm512_setzero_ps();
    for (int64_t g = 0; g < x->groups; g++, value += 2 * x->set * BLOCK) {
        __m512i square[LANES];
#pragma GCC unroll 16
        for (int j = 0; j < LANES; j++) {
            fetch(w->rows[0] + (g * LANES + j) * (GROUP / 2) + AHEAD);
            square[j] = _mm512_loadu_si512(w->rows[j] + g * (GROUP / 2));
        }
        transpose(square);
        const int8_t *low = value, *high = value + x->set * BLOCK;
#define ROW(m) __m512i a##m = _mm512_set1_epi32(-8 * x->partials[m * x->groups + g]);
        EACH(ROW)
#undef ROW
#pragma GCC unroll 16
        for (int j = 0; j < LANES; j++) {
            __m512i both = square[j], w0 = low_half(both), w1 = high_half(both);
#define ROW(m)                                                                                     \
    a##m = _mm512_dpbusd_epi32(a##m, w0, four_bytes(low + m * BLOCK + 4 * j));                     \
    a##m = _mm512_dpbusd_epi32(a##m, w1, four_bytes(high + m * BLOCK + 4 * j));
            EACH(ROW)
#undef ROW
        }
        __m512 scale = _mm512_load_ps(w->scales + g * LANES);
#define ROW(m) total[m] = _mm512_add_ps(total[m], _mm512_mul_ps(_mm512_cvtepi32_ps(a##m), scale));
        EACH(ROW)
#undef ROW
    }
}

#undef NAMED_
#undef NAMED
#undef ROWED
#undef ZERO
#undef MULTIPLY
#undef ROWS
#undef EACH
