"""Attention within a call: windows, segments of a memory, kernels, positions."""
