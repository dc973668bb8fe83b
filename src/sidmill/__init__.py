"""SIDMill: item text to semantic IDs for generative recommendation."""
