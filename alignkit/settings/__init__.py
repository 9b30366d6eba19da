"""The options of a study: a module a section, every key with its default and its meaning."""
