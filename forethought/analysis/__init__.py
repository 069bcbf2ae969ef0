"""Measures: pure functions over records and arrays."""
