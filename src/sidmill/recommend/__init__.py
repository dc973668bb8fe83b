"""A sequence recommender over item vectors."""
