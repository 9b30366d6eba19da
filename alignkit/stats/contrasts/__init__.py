"""One contrast per seed, and exact inference on them."""
