"""Published papers, checked: a folder a paper."""
