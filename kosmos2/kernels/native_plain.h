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

static int32_t dot8_plain(const int8_t *w, const int8_t *x, int64_t k) {
    int32_t sum = 0;
    for (int64_t i = 0; i < k; i++)
        sum += (int32_t)w[i] * x[i];
    return sum;
}

/* One group: byte j holds number j in its low half and number j + 64 in its high half. */
static int32_t dot4_plain(const uint8_t *w, const int8_t *x) {
    int32_t sum = 0;
    for (int i = 0; i < GROUP / 2; i++)
        sum += (w[i] & 15) * x[i] + (w[i] >> 4) * x[i + GROUP / 2];
    return sum;
}

static float row4_plain(const Matrix *w, const Rounded *x, int64_t m, int64_t n) {
    const uint8_t *weight = (const uint8_t *)w->weight + n * (w->k / 2);
    const uint16_t *scale = (const uint16_t *)w->scale + n * x->groups;
    float total = 0;
    for (int64_t g = 0; g < x->groups; g++) {
        int32_t sum = dot4_plain(weight + g * (GROUP / 2), x->values + m * x->stride + g * GROUP);
        total += (float)(sum - 8 * x->partials[m * x->groups + g]) * half_to_float(scale[g]);
    }
    return total;
}

static void product_plain(const Matrix *w, const Rounded *x, Tile tile, float *y, int64_t stride) {
    for (int64_t n = tile.n0; n < tile.n1; n++) {
        const float *bias = w->bias ? w->bias + n : NULL;
        for (int64_t m = tile.m0; m < tile.m1; m++) {
            if (w->bits == 4) {
                y[m * stride + n] = finish4_plain(row4_plain(w, x, m, n), x->scale[m], bias);
                continue;
            }
            int32_t sum =
                dot8_plain((const int8_t *)w->weight + n * w->k, x->values + m * x->stride, w->k);
            float scale = ((const float *)w->scale)[n];
            y[m * stride + n] = finish8_plain(sum, x->scale[m], scale, bias);
        }
    }
}
