"""Servers this house can start for itself."""
