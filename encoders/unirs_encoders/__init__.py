"""UniRS's own encoder plugins, one file a family, written against the public `unirs` API only."""
