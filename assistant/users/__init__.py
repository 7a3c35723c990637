"""People, groups and API tokens."""
