"""From codes to semantic IDs: collisions resolved, quality measured."""
