"""UniRS's own task plugins, one file a benchmark, written against the public `unirs` API only."""
