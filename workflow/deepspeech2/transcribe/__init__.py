"""Transcribes recordings of any length, and sound as it comes."""
