"""Evaluation: benchmark suites, scoring, comparison, ablation, and the files and tables they write."""
