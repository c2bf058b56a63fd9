"""The deterministic loop that runs workflow code, live and in replay alike.

Belongs here: what turns recorded events into steps of workflow code and those steps into commands.
Does not belong here: messages, brokers, storage, type hints; a worker brings the events and sends the commands,
and `WorkflowCode` knows how to decode them.

`compat` private names of asyncio · `futures` Deferred, groups, branches · `loop` the event loop, made of `positions`
(where code stands), `commands` (what it issues), `refusals` (what it cannot have), `handles` (callbacks and timers),
`generators` · `history` the match with what is recorded · `outcomes` of commands · `mailbox` signals · `waits` what a
run waits for · `stdlib` frozen parts of asyncio · `instance` one run, with its `ending` and its `eviction`
"""
