"""From archives and recordings to a checked corpus, its manifests and its sound."""

OTHER = "other"  # files that are neither recording nor transcript: left out without asking
