"""Tests of memgpt_jax; the folders mirror the package."""
