"""Measurements that tell what a campaign costs; `docs/benchmarks.md` holds their results."""
