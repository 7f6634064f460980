"""The ONNX file against its source: the same seeded input through both, in processes of their own.

`verifying` decides what is compared, and whether there is memory for it; `children` runs the processes, and `roles` is
what they do; `comparison` is the arithmetic.
"""
