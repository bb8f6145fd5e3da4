"""`report.html`: scores, charts and samples of an evaluation, of two runs or of a suite, in one file."""
