"""Speed and bits: products, precision, memory, and the streams of randomness."""
