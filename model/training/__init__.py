"""Trains the small demonstration model: synthetic calls in, a checkpoint out."""
