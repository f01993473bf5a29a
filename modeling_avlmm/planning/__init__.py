"""Predict memory and plan a run before anything is loaded."""
