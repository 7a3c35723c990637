"""What is stored: collections, documents, their versions and originals."""
