"""From posteriors to transcripts, error rates, and agreement with the eager reference."""
