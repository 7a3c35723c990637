"""REST interface: thin views over the same actions as the pages."""
