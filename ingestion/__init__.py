"""How an upload becomes searchable; start reading at pipeline.py."""
