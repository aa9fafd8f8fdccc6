"""
The contenders: cq and its peers, one small module each behind `benchmarks.contender`.

A module is imported only in the environment that `pins.toml` describes for it.
"""
