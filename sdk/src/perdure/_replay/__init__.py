"""The deterministic loop that runs workflow code, live and in replay alike.

Belongs here: what turns recorded events into steps of workflow code and those steps into commands.
Does not belong here: messages, brokers, storage, type hints; a worker brings the events and sends the commands,
and `WorkflowCode` knows how to decode them.

`compat` private names of asyncio · `futures` Deferred, groups, branches · `loop` the event loop · `commands` what code
issues · `history` the match with what is recorded · `mailbox` signals · `waits` what a run waits for · `instance` one
run · `cache` live instances · `runner` the thread and its watchdog · `stdlib` frozen parts of asyncio · `guard` nets
against nondeterminism
"""
