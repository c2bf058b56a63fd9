"""The wire contract of Perdure: messages, history events, ids, topics and their Avro codec.

What belongs here: what two processes, possibly in two languages, must agree on.
What does not: behaviour. This package imports no other package of Perdure.
"""
