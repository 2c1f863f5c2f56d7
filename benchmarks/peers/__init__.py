"""Attention against published sequence-parallel libraries, in an environment of their own."""
