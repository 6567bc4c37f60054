"""From archives and recordings to a checked corpus, its manifests and its sound."""
