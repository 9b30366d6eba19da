"""The answers that the report's sections are made of, a question a module."""
