"""Simulated worlds: bimanual assembly and cooperative pushing."""
