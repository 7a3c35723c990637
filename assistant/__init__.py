"""The Django project: users, rights, documents, retrieval, chat, web and API."""
