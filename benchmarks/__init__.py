"""The comparisons behind every figure that the README quotes: `python -m benchmarks`."""
