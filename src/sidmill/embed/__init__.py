"""From text to vectors: one module per backend, and the loop that writes a shard."""
