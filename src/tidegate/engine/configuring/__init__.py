"""What operators write: read, compared with what is there, applied, exported and imported."""
