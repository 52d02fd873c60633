/* Threads that walk through the same phases: a barrier, shared counters, memory that is kept. */
#ifndef KOSMOS2_NATIVE_TEAM_H
#define KOSMOS2_NATIVE_TEAM_H

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "native_types.h"

enum { LINE = 64, HUGE_PAGE = 2 << 20, PATIENCE = 1 << 14 };

/* One phase's tickets, alone on its cache line. */
typedef struct {
    _Alignas(LINE) atomic_long next;
} Counter;

typedef struct {
    _Alignas(LINE) atomic_long arrived;
    int size;
    Counter *counters; /* one for each phase that hands out work, all zero at first */
} Team;

/* A thread's own view of its team. */
typedef struct {
    Team *team;
    int index;
    long barriers, phases;
} Member;

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Phases last microseconds, so waiting spins; it yields when a neighbour has the processor. */
static void barrier(Member *me) {
    Team *team = me->team;
    long wanted = ++me->barriers * team->size;
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 == wanted)
        return;
    for (long spins = 0; atomic_load_explicit(&team->arrived, memory_order_acquire) < wanted;
         spins++) {
        relax();
        if (spins > PATIENCE)
            sched_yield();
    }
}

/* Tickets of the phase that begins: whoever is faster takes more of them. */
static inline Counter *begin_phase(Member *me) { return &me->team->counters[me->phases++]; }

static inline int64_t take(Counter *counter) {
    return atomic_fetch_add_explicit(&counter->next, 1, memory_order_relaxed);
}

/* Memory of a thread that only grows, so that no call pays for fresh pages. */
typedef struct {
    char *base;
    size_t size;
} Store;

static void *aligned(size_t size) {
    size_t rounded = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *memory = aligned_alloc(HUGE_PAGE, rounded);
    if (memory == NULL)
        abort();
#if defined(MADV_HUGEPAGE)
    madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    return memory;
}

static char *reserve(Store *store, size_t size) {
    if (store->size < size) {
        free(store->base);
        store->base = aligned(size);
        store->size = size;
    }
    return store->base;
}

/* Return the next `size` bytes of a region, aligned to a cache line, and step over them. */
static void *carve(char **next, size_t size) {
    void *here = *next;
    *next += (size + LINE - 1) / LINE * LINE;
    return here;
}

#endif
