"""Files: where they lie, how they are written at once, and the hashes that vouch for them."""
