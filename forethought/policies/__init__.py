"""Shipped policies, one YAML file each."""
