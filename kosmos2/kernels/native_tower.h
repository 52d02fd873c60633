/* The blocks of a vision tower in bf16: every patch looks at every patch of its picture. */

/* (python) One block; query, key and value are one matrix. */
typedef struct {
    Norm attention_norm, feedforward_norm;
    Matrix qkv, output, expand, contract;
} TowerBlock;

/* (python) All blocks. */
typedef struct {
    const TowerBlock *blocks;
    int64_t num_blocks, num_heads, width, feedforward_width;
    double norm_eps;
} Tower;

enum { PHASES_A_TOWER_BLOCK = 8 };

typedef struct {
    const Kernels *kernels;
    const Tower *tower;
    int64_t pictures, patches; /* of a picture */
    float *x, *mixed, *delta;  /* (pictures * patches, width) */
    float *qkv;                /* (pictures * patches, 3 * width) */
    char *rounded, *expanded;  /* room for a Rounded of width, of feedforward_width */
} Look;

static _Thread_local Store head_store;

static int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* 64 rows of x (count, k) of keys as a panel of weights. */
BF16 static void pack_keys(const float *x, int64_t row_stride, int64_t count, int64_t k,
                           char *panel) {
    for (int64_t r = 0; r < PANEL; r += LANES)
        for (int64_t i = 0; i < k; i += 2 * LANES) {
            __m512i square[LANES];
            for (int64_t j = 0; j < LANES; j++) {
                const float *row = x + (r + j) * row_stride + i;
                int64_t first = r + j < count ? k - i : 0;
                __m512 low = _mm512_maskz_loadu_ps(first > 0 ? mask_of(first) : 0, row);
                __m512 high = _mm512_maskz_loadu_ps(
                    first > LANES ? mask_of(first - LANES) : 0, row + LANES);
                square[j] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
            }
            transpose(square);
            for (int64_t j = 0; j < LANES; j++)
                _mm512_store_si512(panel + (i / 2 + j) * 4 * PANEL + r * 4, square[j]);
        }
}

/* 64 columns of x (rows, count) of values as a panel: rows are what sums go through. */
BF16 static void pack_values(const float *x, int64_t row_stride, int64_t rows, int64_t count,
                             char *panel) {
    for (int64_t i = 0; i < up(rows, 2 * PAIRS); i += 2)
        for (int64_t c = 0; c < PANEL; c += LANES) {
            __mmask16 some = count > c ? mask_of(count - c) : 0;
            const float *row = x + i * row_stride + c;
            __m512 even = _mm512_maskz_loadu_ps(i < rows ? some : 0, row);
            __m512 odd = _mm512_maskz_loadu_ps(i + 1 < rows ? some : 0, row + row_stride);
            __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
            __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
            _mm512_store_si512(panel + i / 2 * 4 * PANEL + c * 4,
                               _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
}

/* What one thread needs for one head. */
typedef struct {
    int64_t width, patches; /* of the head */
    int64_t key_panels, key_size, value_panels, value_size; /* bytes of a panel */
    char *keys, *values;
    Rounded queries, shares; /* SET_ROWS rows of either */
    float *scores, *query, *mixed, *zeros;
} Head;

static char *carve_head(Head *h, char *next) {
    h->key_panels = (h->patches + PANEL - 1) / PANEL;
    h->key_size = up(h->width, 2 * PAIRS) * 2 * PANEL;
    h->value_panels = (h->width + PANEL - 1) / PANEL;
    h->value_size = up(h->patches, 2 * PAIRS) * 2 * PANEL;
    h->keys = carve(&next, (size_t)(h->key_panels * h->key_size));
    h->values = carve(&next, (size_t)(h->value_panels * h->value_size));
    char *queries = carve(&next, rounded_size(SET_ROWS, h->width, 16));
    char *shares = carve(&next, rounded_size(SET_ROWS, h->patches, 16));
    h->queries = carve_rounded(queries, SET_ROWS, h->width, 16);
    h->shares = carve_rounded(shares, SET_ROWS, h->patches, 16);
    h->scores = carve(&next, (size_t)(SET_ROWS * h->key_panels * PANEL) * sizeof(float));
    h->mixed = carve(&next, (size_t)(SET_ROWS * h->value_panels * PANEL) * sizeof(float));
    h->query = carve(&next, (size_t)h->width * sizeof(float));
    h->zeros = carve(&next, PANEL * sizeof(float));
    return next;
}

/* Sets of rows times panels that lie one after the other: y (count, panels * PANEL). */
BF16 static void few_panels16(const char *panels, int64_t number, const Rounded *x, int64_t count,
                              const float *zeros, float *y) {
    Block16 p = {.blocks = x->stride / BLOCK, .step = x->set * BLOCK, .soon = panels};
    for (int64_t i = 0; i < number; i++) {
        p.weights = panels + i * p.blocks * WEIGHTS16;
        block16_of[count](&p, x->values, zeros, 0, y + i * PANEL, number * PANEL);
    }
}

BF16 static void attend_head16(const Look *look, const float *qkv, float *mixed) {
    const Tower *t = look->tower;
    int64_t row = 3 * t->width;
    Head h = {.width = t->width / t->num_heads, .patches = look->patches};
    size_t size = (size_t)(carve_head(&h, NULL) - (char *)NULL);
    carve_head(&h, reserve(&head_store, size));
    memset(h.zeros, 0, PANEL * sizeof(float));
    const float *key = qkv + t->width, *value = qkv + 2 * t->width;
    for (int64_t i = 0; i < h.key_panels; i++)
        pack_keys(key + i * PANEL * row, row, h.patches - i * PANEL, h.width,
                  h.keys + i * h.key_size);
    for (int64_t i = 0; i < h.value_panels; i++)
        pack_values(value + i * PANEL, row, h.patches, h.width - i * PANEL,
                    h.values + i * h.value_size);
    float scale = 1.0f / __builtin_sqrtf((float)h.width);
    for (int64_t m = 0; m < h.patches; m += SET_ROWS) {
        int64_t count = min(SET_ROWS, h.patches - m);
        for (int64_t i = 0; i < count; i++) {
            for (int64_t j = 0; j < h.width; j++)
                h.query[j] = qkv[(m + i) * row + j] * scale;
            round_row16(h.query, &h.queries, i);
        }
        few_panels16(h.keys, h.key_panels, &h.queries, count, h.zeros, h.scores);
        for (int64_t i = 0; i < count; i++) {
            float *scores = h.scores + i * h.key_panels * PANEL;
            softmax_avx512(scores, h.patches);
            round_row16(scores, &h.shares, i);
        }
        few_panels16(h.values, h.value_panels, &h.shares, count, h.zeros, h.mixed);
        for (int64_t i = 0; i < count; i++)
            memcpy(mixed + (m + i) * t->width, h.mixed + i * h.value_panels * PANEL,
                   (size_t)h.width * sizeof(float));
    }
}

static void attend_patches(Member *me, const Look *look) {
    Counter *counter = begin_phase(me);
    const Tower *t = look->tower;
    for (int64_t ticket; (ticket = take(counter)) < look->pictures * t->num_heads;) {
        int64_t first = ticket / t->num_heads * look->patches;
        int64_t column = ticket % t->num_heads * (t->width / t->num_heads);
        attend_head16(look, look->qkv + first * 3 * t->width + column,
                      look->mixed + first * t->width + column);
    }
    barrier(me);
}

/* Rows as they are, or behind a norm. */
static Rounded rounded_rows(Member *me, const Look *look, const float *x, const Norm *norm) {
    Counter *counter = begin_phase(me);
    int64_t k = look->tower->width, rows = look->pictures * look->patches;
    Rounded rounded = carve_rounded(look->rounded, rows, k, 16);
    float *y = (float *)reserve(&row_store, (size_t)k * sizeof(float));
    for (int64_t row; (row = take(counter)) < rows;) {
        const float *from = x + row * k;
        if (norm) {
            look->kernels->normalise(from, *norm, (float)look->tower->norm_eps, k, y);
            from = y;
        }
        round_row16(from, &rounded, row);
    }
    barrier(me);
    return rounded;
}

static void run_tower_block(Member *me, const Look *look, const TowerBlock *b) {
    int64_t rows = look->pictures * look->patches;
    Rounded x = rounded_rows(me, look, look->x, &b->attention_norm);
    Product qkv = {.kernels = look->kernels, .w = &b->qkv, .x = &x, .y = look->qkv};
    multiply(me, &qkv);
    attend_patches(me, look);

    x = rounded_rows(me, look, look->mixed, NULL);
    Product output = {.kernels = look->kernels, .w = &b->output, .x = &x, .y = look->delta,
                      .after = ADD, .sum = look->x};
    multiply(me, &output);

    x = rounded_rows(me, look, look->x, &b->feedforward_norm);
    Rounded expanded = carve_rounded(look->expanded, rows, look->tower->feedforward_width, 16);
    Product expand = {.kernels = look->kernels, .w = &b->expand, .x = &x, .after = QUICK_GELU,
                      .rounded = &expanded};
    multiply(me, &expand);
    Product contract = {.kernels = look->kernels, .w = &b->contract, .x = &expanded,
                        .y = look->delta, .after = ADD, .sum = look->x};
    multiply(me, &contract);
}

static size_t carve_look(Look *look, char *memory) {
    const Tower *t = look->tower;
    int64_t rows = look->pictures * look->patches;
    size_t floats = (size_t)(rows * t->width) * sizeof(float);
    char *next = memory;
    look->mixed = carve(&next, floats);
    look->delta = carve(&next, floats);
    look->qkv = carve(&next, 3 * floats);
    look->rounded = carve(&next, rounded_size(rows, t->width, 16));
    look->expanded = carve(&next, rounded_size(rows, t->feedforward_width, 16));
    return (size_t)(next - memory);
}

/* All blocks in place: x (pictures * patches, width). */
void k2_tower(int set, int threads, const Tower *tower, int64_t pictures, int64_t patches,
              float *x) {
    Look look = {.kernels = &kernels_of[set], .tower = tower, .pictures = pictures,
                 .patches = patches, .x = x};
    size_t counted = (size_t)(tower->num_blocks * PHASES_A_TOWER_BLOCK) * sizeof(Counter);
    char *memory = reserve(&call_store, counted + carve_look(&look, NULL));
    memset(memory, 0, counted);
    carve_look(&look, memory + counted);
    Team team = {.size = threads, .counters = (Counter *)memory};
#pragma omp parallel num_threads(threads)
    {
        Member me = {.team = &team, .index = omp_get_thread_num()};
        for (int64_t i = 0; i < tower->num_blocks; i++)
            run_tower_block(&me, &look, &tower->blocks[i]);
    }
}
