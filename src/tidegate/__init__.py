"""Tidegate: scheduled sync that can prove nothing was missed."""
