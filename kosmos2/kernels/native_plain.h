/* Products in plain C: any processor, and the reference of the other sets. */

static float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, bits;
    int32_t exponent = (half >> 10) & 31;
    uint32_t fraction = half & 1023;
    if (exponent == 31) {
        bits = 0x7f800000 | fraction << 13;
    } else if (exponent) {
        bits = (uint32_t)(exponent + 112) << 23 | fraction << 13;
    } else {
        float small = (float)fraction * 0x1p-24f;
        memcpy(&bits, &small, sizeof bits);
    }
    bits |= sign;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int32_t row8_plain(const Matrix *w, const Rounded *x, int64_t m, int64_t n) {
    const int8_t *weight = (const int8_t *)w->weight + n * w->k, *block = values_of(x, m);
    int32_t sum = 0;
    for (int64_t start = 0; start < w->k; start += BLOCK, block += x->set * BLOCK)
        for (int64_t i = 0; i < BLOCK && start + i < w->k; i++)
            sum += (int32_t)weight[start + i] * block[i];
    return sum;
}

/* Byte j of a group holds number j in its low half and number j + 64, a block on, in the other. */
static float row4_plain(const Matrix *w, const Rounded *x, int64_t m, int64_t n) {
    const uint8_t *weight = (const uint8_t *)w->weight + n * (w->k / 2);
    const uint16_t *scale = (const uint16_t *)w->scale + n * x->groups;
    const int8_t *low = values_of(x, m);
    float total = 0;
    for (int64_t g = 0; g < x->groups; g++, weight += GROUP / 2, low += 2 * x->set * BLOCK) {
        const int8_t *high = low + x->set * BLOCK;
        int32_t sum = -8 * x->partials[m * x->groups + g];
        for (int i = 0; i < GROUP / 2; i++)
            sum += (weight[i] & 15) * low[i] + (weight[i] >> 4) * high[i];
        total += (float)sum * half_to_float(scale[g]);
    }
    return total;
}

static void product_plain(const Matrix *w, const Rounded *x, Tile tile, float *y, int64_t stride) {
    for (int64_t n = tile.n0; n < tile.n1; n++) {
        const float *bias = w->bias ? w->bias + n : NULL;
        for (int64_t m = tile.m0; m < tile.m1; m++)
            y[m * stride + n] =
                w->bits == 8 ? finish8_plain(row8_plain(w, x, m, n), x->scale[m],
                                             ((const float *)w->scale)[n], bias)
                             : finish4_plain(row4_plain(w, x, m, n), x->scale[m], bias);
    }
}
