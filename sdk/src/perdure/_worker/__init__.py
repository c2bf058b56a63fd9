"""What makes a process a worker: it receives turns and attempts, runs user code, and answers.

Belongs here: messages in, answers out, slots, threads, processes, cancels, heartbeats, the end of the process.
Does not belong here: how workflow code is replayed (`perdure._replay`), how anything is declared or converted.

User code never runs on the loop that talks to the broker: turns have the workflow thread, async tasks a loop of
their own, other tasks threads and processes.
"""
