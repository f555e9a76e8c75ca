"""Speed, accuracy and fault measurements, ours and the peers' side by side: `python -m benchmarks NAME [--quick]`."""
