"""Experiments: command line, runs, sweeps, ledger, plots, benchmarks. The library does not import it."""
