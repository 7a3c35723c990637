"""How a question becomes an answer; start reading at answering.py."""
