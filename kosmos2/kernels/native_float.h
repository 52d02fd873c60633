/* Norms, rounding, GELU and attention in plain C, included once for each instruction set.
 *
 * The includer defines TARGET (a function attribute) and NAME(x) (x with the set's suffix). Loops
 * are written for the compiler to vectorise, in a way that every set gives the same bits. Rows
 * never share a sum, so a row's result does not depend on the rows beside it.
 */

TARGET static int64_t NAME(total)(const int64_t *x, int64_t n) {
    int64_t result = 0;
#pragma omp simd reduction(+ : result)
    for (int64_t i = 0; i < n; i++)
        result += x[i];
    return result;
}

/* Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even, in every set. */
#define ROUND_MAGIC 12582912.0f

/* Sums go by 16 lanes and then by halves, whatever the set: a compiler left alone would choose the
 * order by the set's width and by where the numbers happen to lie. */
TARGET static inline float NAME(sum_of)(const Lanes *lanes) {
    Half half = lanes->halves[0] + lanes->halves[1];
    Quarter quarter = ((Quarter *)&half)[0] + ((Quarter *)&half)[1];
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

#if defined(WIDE)
/* The same tree for 16 sums at once. */
TARGET static inline void NAME(sums_of_16)(const Lanes *v, float *sums) {
    __m512 eight[8], four[4], two[2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m512 a = (__m512)v[2 * i].whole, b = (__m512)v[2 * i + 1].whole;
        eight[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512 a = eight[2 * i], b = eight[2 * i + 1];
        four[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m512 a = four[2 * i], b = four[2 * i + 1];
        two[i] = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
    }
    __m512 one = _mm512_add_ps(_mm512_shuffle_ps(two[0], two[1], 0x88),
                               _mm512_shuffle_ps(two[0], two[1], 0xdd));
    /* Lane 4 i + j is sum 4 j + i's: the pairs were put side by side. */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_ps(sums, _mm512_permutexvar_ps(order, one));
}
#else
TARGET static inline void NAME(sums_of_16)(const Lanes *v, float *sums) {
    for (int i = 0; i < 16; i++)
        sums[i] = NAME(sum_of)(&v[i]);
}
#endif

/* x[0..count), zeros behind it. */
TARGET static inline void NAME(lanes_of)(const float *x, int64_t count, Lanes *lanes) {
    if (count >= 16) {
        memcpy(lanes, x, sizeof *lanes);
    } else {
        memset(lanes, 0, sizeof *lanes);
        memcpy(lanes, x, (size_t)count * sizeof *x);
    }
}

TARGET static void NAME(normalise)(const float *x, Norm norm, float eps, int64_t n, float *y) {
    Lanes sum = {0}, squares = {0}, part;
    for (int64_t i = 0; i < n; i += 16) {
        NAME(lanes_of)(x + i, n - i, &part);
        sum.whole += part.whole;
    }
    float mean = NAME(sum_of)(&sum) / (float)n;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] - mean;
    for (int64_t i = 0; i < n; i += 16) {
        NAME(lanes_of)(y + i, n - i, &part);
        squares.whole += part.whole * part.whole;
    }
    float gain = 1.0f / __builtin_sqrtf(NAME(sum_of)(&squares) / (float)n + eps);
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] = y[i] * gain * norm.weight[i] + norm.bias[i];
}

/* Same operations in the same order as kernels.quantized.round_rows: equal to the last bit. */
TARGET static void NAME(round_row)(const float *x, const Rounded *out, int64_t row) {
    float largest = 1.17549435e-38f * LEVELS;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < out->k; i++)
        largest = __builtin_fabsf(x[i]) > largest ? __builtin_fabsf(x[i]) : largest;
    out->scale[row] = largest / LEVELS;

    int32_t total = 0, *partials = out->partials + row * out->groups;
    memset(partials, 0, (size_t)out->groups * sizeof *partials);
    int8_t *block = values_of(out, row);
    for (int64_t start = 0; start < out->k; start += BLOCK, block += out->set * BLOCK) {
        int64_t count = out->k - start < BLOCK ? out->k - start : BLOCK;
        int32_t sum = 0;
        if (count < BLOCK)
            memset(block, 0, BLOCK);
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < count; i++) {
            float nearest = x[start + i] / largest * LEVELS + ROUND_MAGIC - ROUND_MAGIC;
            int32_t value = (int32_t)nearest;
            block[i] = (int8_t)value;
            sum += value;
        }
        partials[start / GROUP] += sum;
        total += sum;
    }
    out->sums[row] = total;
}

/* erf as a ratio of polynomials on -4..4, where it reaches 1 in float; off by 3e-7 at most. */
TARGET static inline float NAME(erf)(float x) {
    x = x < -4.0f ? -4.0f : x > 4.0f ? 4.0f : x;
    float s = x * x;
    float p = -2.72614225801306e-10f;
    p = p * s + 2.77068142495902e-08f;
    p = p * s + -2.10102402082508e-06f;
    p = p * s + -5.69250639462346e-05f;
    p = p * s + -7.34990630326855e-04f;
    p = p * s + -2.95459980854025e-03f;
    p = p * s + -1.60960333262415e-02f;
    float q = -1.45660718464996e-05f;
    q = q * s + -2.13374055278905e-04f;
    q = q * s + -1.68282697438203e-03f;
    q = q * s + -7.37332916720468e-03f;
    q = q * s + -1.42647390514189e-02f;
    return x * p / q;
}

TARGET static void NAME(gelu)(float *x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        x[i] = 0.5f * x[i] * (1.0f + NAME(erf)(x[i] * 0.70710678118654752f));
}

TARGET static void NAME(add)(float *x, const float *y, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        x[i] += y[i];
}

/* e^x for x <= 0: 2^n by the exponent's bits, the rest by a polynomial (Cephes). */
TARGET static inline float NAME(exp)(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = x * 1.44269504088896341f + ROUND_MAGIC - ROUND_MAGIC;
    float r = x - n * 0.693359375f - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    union {
        int32_t bits;
        float value;
    } power = {((int32_t)n + 127) << 23};
    return p * power.value;
}

/* x / (1 + e^(-1.702 x)); the exponential of what is not positive cannot overflow. */
TARGET static inline void NAME(quick_gelu)(float *x, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float size = 1.702f * __builtin_fabsf(x[i]), power = NAME(exp)(-size);
        x[i] = x[i] * (x[i] < 0 ? power : 1.0f) / (1.0f + power);
    }
}

TARGET static void NAME(softmax)(float *x, int64_t n) {
    float largest = x[0];
    Lanes sum = {0}, part;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        x[i] = NAME(exp)(x[i] - largest);
    for (int64_t i = 0; i < n; i += 16) {
        NAME(lanes_of)(x + i, n - i, &part);
        sum.whole += part.whole;
    }
    float scale = 1.0f / NAME(sum_of)(&sum);
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        x[i] *= scale;
}

/* 16 slots of one head: `rows` point to their numbers, `count` of them exist. */
typedef struct {
    const float *rows[SLOTS];
    int64_t count;
} NAME(Slots);

/* Slots behind the last repeat it; what they give is not used. Heads of a slot lie side by side but
 * slots far apart, which the processor does not foresee: the next ones are asked for here. When
 * several queries will read them, they are copied to one place, for they share few cache lines. */
TARGET static inline void NAME(find_slots)(const Attention *job, const float *held, int64_t slot,
                                           int64_t width, float *copy, NAME(Slots) *slots) {
    int64_t longest = job->num_keys + job->num_queries - 1, step = 2 * job->width;
    slots->count = longest - slot < SLOTS ? longest - slot : SLOTS;
    for (int64_t i = 0; i < SLOTS; i++) {
        int64_t own = i < slots->count ? i : slots->count - 1;
        slots->rows[i] = held + (slot + own) * step;
        for (int64_t j = 0; j < width; j += LINE / (int64_t)sizeof *held)
            __builtin_prefetch(slots->rows[i] + SLOTS * step + j, 0, 2);
        if (copy) {
            memcpy(copy + i * width, slots->rows[i], (size_t)width * sizeof *copy);
            slots->rows[i] = copy + i * width;
        }
    }
}

/* Products of a query with 16 slots, added up and scaled. */
TARGET static inline void NAME(score_slots)(const float *query, const NAME(Slots) *slots,
                                            int64_t width, float scale, float *scores) {
    Lanes sums[SLOTS];
    for (int64_t i = 0; i < SLOTS; i++) {
        Lanes sum = {0}, a, b;
        for (int64_t j = 0; j < width; j += 16) {
            NAME(lanes_of)(query + j, width - j, &a);
            NAME(lanes_of)(slots->rows[i] + j, width - j, &b);
            sum.whole += a.whole * b.whole;
        }
        sums[i] = sum;
    }
    NAME(sums_of_16)(sums, scores);
    for (int64_t i = 0; i < SLOTS; i++)
        scores[i] *= scale;
}

/* mixed (width) += shares of `count` slots times their values, slot after slot. Four sums at a time
 * do not wait for each other. */
TARGET static inline void NAME(mix_slots)(const float *shares, const NAME(Slots) *slots,
                                          int64_t count, int64_t width, float *mixed) {
    int64_t j = 0;
    for (; j + 64 <= width; j += 64) {
        Whole a, b, c, d, value;
        memcpy(&a, mixed + j, sizeof a), memcpy(&b, mixed + j + 16, sizeof b);
        memcpy(&c, mixed + j + 32, sizeof c), memcpy(&d, mixed + j + 48, sizeof d);
        for (int64_t i = 0; i < count; i++) {
            const float *row = slots->rows[i] + j;
            memcpy(&value, row, sizeof value), a += shares[i] * value;
            memcpy(&value, row + 16, sizeof value), b += shares[i] * value;
            memcpy(&value, row + 32, sizeof value), c += shares[i] * value;
            memcpy(&value, row + 48, sizeof value), d += shares[i] * value;
        }
        memcpy(mixed + j, &a, sizeof a), memcpy(mixed + j + 16, &b, sizeof b);
        memcpy(mixed + j + 32, &c, sizeof c), memcpy(mixed + j + 48, &d, sizeof d);
    }
    for (int64_t i = 0; i < count; i++)
        for (int64_t rest = j; rest < width; rest++)
            mixed[rest] += shares[i] * slots->rows[i][rest];
}

/* Keys of all heads first, then values. A query's sums never depend on the queries beside it. */
TARGET static inline void NAME(attend_heads)(const Attention *job, int64_t width) {
    int64_t longest = job->num_keys + job->num_queries - 1;
    int64_t stride = (longest + SLOTS - 1) / SLOTS * SLOTS;
    float copies[SLOTS * COPIED], *copy = job->num_queries > 1 && width <= COPIED ? copies : NULL;
    float scale = 1.0f / __builtin_sqrtf((float)width);
    NAME(Slots) slots;
    for (int64_t slot = 0; slot < longest; slot += SLOTS)
        for (int64_t head = 0; head < job->num_heads; head++) {
            NAME(find_slots)(job, job->held + head * width, slot, width, copy, &slots);
            for (int64_t query = 0; query < job->num_queries; query++)
                NAME(score_slots)(job->query + query * job->query_stride + head * width, &slots,
                                  width, scale,
                                  job->scores + (query * job->num_heads + head) * stride + slot);
        }
    for (int64_t query = 0; query < job->num_queries; query++) {
        memset(job->mixed + query * job->mixed_stride, 0,
               (size_t)(job->num_heads * width) * sizeof(float));
        for (int64_t head = 0; head < job->num_heads; head++)
            NAME(softmax)(job->scores + (query * job->num_heads + head) * stride,
                          job->num_keys + query);
    }
    for (int64_t slot = 0; slot < longest; slot += SLOTS)
        for (int64_t head = 0; head < job->num_heads; head++) {
            NAME(find_slots)(job, job->held + job->width + head * width, slot, width, copy, &slots);
            for (int64_t query = 0; query < job->num_queries; query++) {
                int64_t count = job->num_keys + query - slot;
                NAME(mix_slots)(job->scores + (query * job->num_heads + head) * stride + slot,
                                &slots, count < slots.count ? count : slots.count, width,
                                job->mixed + query * job->mixed_stride + head * width);
            }
        }
}

/* Heads of the full model have 64 numbers: a constant lets the compiler keep them in registers. */
TARGET static void NAME(attend)(const Attention *job) {
    if (job->head_width == 64)
        NAME(attend_heads)(job, 64);
    else
        NAME(attend_heads)(job, job->head_width);
}

/* The two steps behind every exact sum of integers, the same in every set and for any rows. */
static inline float NAME(finish8)(int32_t sum, float row_scale, float scale, const float *bias) {
    float y = (float)sum * (row_scale * scale);
    return bias ? y + *bias : y;
}

static inline float NAME(finish4)(float sum, float row_scale, const float *bias) {
    float y = sum * row_scale;
    return bias ? y + *bias : y;
}

#undef ROUND_MAGIC
