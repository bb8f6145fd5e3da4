"""Synthetic data sets: aerial scenes drawn from random geometry, written in the real benchmarks' formats."""
