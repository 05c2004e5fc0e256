"""What tests and benchmarks stand on: real servers, a fake provider at the wire, faults on command."""
