# What `make bench` asks for before it measures.


# What benchmarks/bench.py starts from: features, exports and the eager network's transcripts.
rule bench:
    input:
        features(),
        exports(),
        eager_transcripts(),
