"""Dense retrieval: encoders, search, reranking, figures."""
