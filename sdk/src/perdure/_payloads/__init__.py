"""Payloads on their way out of and into this process: compressed and encrypted outside, plain inside."""
