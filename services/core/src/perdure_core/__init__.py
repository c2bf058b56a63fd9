"""What the engines decide: pure functions of a state and a message.

What belongs here: rules. What does not: input, output, a clock, randomness, logging, `async`. Time comes with the
message, jitter is derived from ids. Its only import from Perdure is the wire contract.
"""
