/* bf16 products for exactly ROWS rows of activations and 64 rows of weights; included once for each
 * number of rows. EACH(f) is f(0) f(1) ... f(ROWS - 1); in row m, am bm cm dm are 16 sums each.
 */

#define NAMED_(x, rows) x##_##rows
#define NAMED(x, rows) NAMED_(x, rows)
#define ROWED(x) NAMED(x, ROWS)

/* Sums go on from `from`, whose rows lie `from_stride` floats apart, and end in `to`. */
BF16 static void ROWED(block16)(const Block16 *p, const int8_t *x, const float *from,
                                int64_t from_stride, float *to, int64_t to_stride) {
    const char *at = p->weights, *soon = p->soon;
    int64_t spread = p->spread;
#define ROW(m)                                                                                     \
    __m512 a##m = _mm512_loadu_ps(from + m * from_stride);                                         \
    __m512 b##m = _mm512_loadu_ps(from + m * from_stride + LANES);                                 \
    __m512 c##m = _mm512_loadu_ps(from + m * from_stride + 2 * LANES);                             \
    __m512 d##m = _mm512_loadu_ps(from + m * from_stride + 3 * LANES);
    EACH(ROW)
#undef ROW
    for (int64_t i = 0; i < p->blocks; i++, x += p->step)
        for (int j = 0; j < BLOCK; j += 4, at += 4 * LINE) {
            fetch(soon), fetch(soon + spread), fetch(soon + 2 * spread), fetch(soon + 3 * spread);
            soon += p->soon_step;
            __m512bh w0 = (__m512bh)_mm512_load_si512(at);
            __m512bh w1 = (__m512bh)_mm512_load_si512(at + LINE);
            __m512bh w2 = (__m512bh)_mm512_load_si512(at + 2 * LINE);
            __m512bh w3 = (__m512bh)_mm512_load_si512(at + 3 * LINE);
#define ROW(m)                                                                                     \
    {                                                                                              \
        __m512bh value = (__m512bh)four_bytes(x + m * BLOCK + j);                                  \
        a##m = _mm512_dpbf16_ps(a##m, w0, value);                                                  \
        b##m = _mm512_dpbf16_ps(b##m, w1, value);                                                  \
        c##m = _mm512_dpbf16_ps(c##m, w2, value);                                                  \
        d##m = _mm512_dpbf16_ps(d##m, w3, value);                                                  \
    }
            EACH(ROW)
#undef ROW
        }
#define ROW(m)                                                                                     \
    _mm512_storeu_ps(to + m * to_stride, a##m);                                                    \
    _mm512_storeu_ps(to + m * to_stride + LANES, b##m);                                            \
    _mm512_storeu_ps(to + m * to_stride + 2 * LANES, c##m);                                        \
    _mm512_storeu_ps(to + m * to_stride + 3 * LANES, d##m);
    EACH(ROW)
#undef ROW
}

#undef NAMED_
#undef NAMED
#undef ROWED
#undef ROWS
#undef EACH
