"""Small runs: 10,000 installations, nothing new in any of them."""
