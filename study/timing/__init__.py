"""How long training takes: benchmarks and estimates."""
