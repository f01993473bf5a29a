"""Explanations of a verdict: attribution, face regions, measured evidence, and the words of a verdict."""
