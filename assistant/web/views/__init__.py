"""Thin views: parse the request, call the actions, render. Every object comes from for_user."""
