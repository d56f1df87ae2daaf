"""Compiled kernels of the exact engine: integers only, so that every machine computes the same."""
