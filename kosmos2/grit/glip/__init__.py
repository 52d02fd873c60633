"""GLIP-T, the detector of the Kosmos-2 paper, in plain PyTorch: it runs without CUDA kernels.

The behaviour is that of microsoft/GLIP (MIT licence, a fork of maskrcnn_benchmark); comments name
its files where a choice would surprise. The code is our own. Modules bear the names of the released
checkpoint, so that its tensors are found by name.

The released checkpoint was never within reach when this was written: that it loads is proven on its
names and shapes, which follow from the reference's code, and not on its numbers.

Dimension letters, the same in every file of this package:

    B  batch            T  tokens              L  width of a token     N  phrases
    C  channels         Y  rows                X  columns              V  cells of all levels
    H  heads            K  width of a head     W  windows              P  cells of a window
    R  rows of boxes
"""
