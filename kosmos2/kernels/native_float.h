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
#define SLOTS_AHEAD 4

/* Sums go by 16 lanes and then by halves, whatever the set: a compiler left alone would choose the
 * order by the set's width and by where the numbers happen to lie. */
TARGET static inline float NAME(sum_of)(const Lanes *lanes) {
    Half half = lanes->halves[0] + lanes->halves[1];
    Quarter quarter = ((Quarter *)&half)[0] + ((Quarter *)&half)[1];
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

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

TARGET static inline float NAME(dot)(const float *x, const float *y, int64_t n) {
    Lanes sum = {0}, a, b;
    for (int64_t i = 0; i < n; i += 16) {
        NAME(lanes_of)(x + i, n - i, &a);
        NAME(lanes_of)(y + i, n - i, &b);
        sum.whole += a.whole * b.whole;
    }
    return NAME(sum_of)(&sum);
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

/* Ask for memory that is needed soon: slots lie too far apart for the processor to foresee. */
TARGET static inline void NAME(fetch_floats)(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += LINE / (int64_t)sizeof *x)
        __builtin_prefetch(x + i, 0, 2);
}

/* Slot after slot, because the heads of a slot lie side by side. */
TARGET static inline void NAME(attend_heads)(const Attention *job, int64_t head_width) {
    int64_t longest = job->num_keys + job->num_queries - 1;
    int64_t slot_size = 2 * job->width;
    float scale = 1.0f / __builtin_sqrtf((float)head_width);
    for (int64_t slot = 0; slot < longest; slot++) {
        const float *key = job->held + slot * slot_size;
        NAME(fetch_floats)(key + SLOTS_AHEAD * slot_size, job->num_heads * head_width);
        int64_t first = slot < job->num_keys ? 0 : slot - job->num_keys + 1;
        for (int64_t head = 0; head < job->num_heads; head++)
            for (int64_t query = first; query < job->num_queries; query++)
                job->scores[(query * job->num_heads + head) * longest + slot] =
                    scale * NAME(dot)(job->query + query * job->query_stride + head * head_width,
                                      key + head * head_width, head_width);
    }
    for (int64_t query = 0; query < job->num_queries; query++) {
        memset(job->mixed + query * job->mixed_stride, 0,
               (size_t)(job->num_heads * head_width) * sizeof(float));
        for (int64_t head = 0; head < job->num_heads; head++)
            NAME(softmax)(job->scores + (query * job->num_heads + head) * longest,
                          job->num_keys + query);
    }
    for (int64_t slot = 0; slot < longest; slot++) {
        const float *value = job->held + job->width + slot * slot_size;
        NAME(fetch_floats)(value + SLOTS_AHEAD * slot_size, job->num_heads * head_width);
        int64_t first = slot < job->num_keys ? 0 : slot - job->num_keys + 1;
        for (int64_t head = 0; head < job->num_heads; head++)
            for (int64_t query = first; query < job->num_queries; query++) {
                float share = job->scores[(query * job->num_heads + head) * longest + slot];
                float *mixed = job->mixed + query * job->mixed_stride + head * head_width;
#pragma omp simd
                for (int64_t i = 0; i < head_width; i++)
                    mixed[i] += share * value[head * head_width + i];
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
#undef SLOTS_AHEAD
