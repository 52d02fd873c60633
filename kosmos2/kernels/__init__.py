"""Fast matrix products and how weights are rounded: tensors in, tensors out.

Letters of this package: N rows of a weight (what goes out), K its columns (what comes in), G groups
of a row that share a scale, M rows of a call, V tokens of a table, D its width.
"""
