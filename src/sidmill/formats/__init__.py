"""One module per file format: it writes the file, reads it, and refuses what is wrong with it."""
