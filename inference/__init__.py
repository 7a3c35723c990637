"""Models behind Protocols: language model, embedder, reranker. Knows no Django."""
