"""Text vectors and training interactions -> the vectors that quantizers are given."""
