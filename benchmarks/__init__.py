"""How fast, how small and how exact: ours beside transformers and the limits of the machine.

    python -m benchmarks            everything; writes docs/results/performance.md and .json
    python -m benchmarks --quick    most of it with few repeats, under four minutes; writes nothing

Weights are random, at full size, made in place; both sides hold the same numbers. Every table
races its contestants in turns, round after round in one process, so that a slow minute of the
machine is slow for all; a ratio is the median over rounds of the ratio within a round. Each round
also measures the memory's read bandwidth (and, where arithmetic is the limit, the rate of the
best matrix product), which the shares of the limit refer to.
"""
