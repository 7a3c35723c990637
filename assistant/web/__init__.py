"""Server-rendered pages: thin views over the same actions as the API."""
