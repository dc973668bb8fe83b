"""One module per embedding backend: what ``embedding.backend`` names."""
