"""A recommender that generates semantic IDs."""
