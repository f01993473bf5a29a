"""Draw talking heads, genuine and forged, in the layouts of real corpora."""
