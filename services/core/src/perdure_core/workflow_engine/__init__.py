"""The workflow engine's core: what a run is, and what each message does to it.

    decide(state, message, context)   reads the state, says what is to be recorded (decide.py)
    evolve(state, recorded)           applies one recorded event to the state (state.py)
    effects(state, events)            what recorded events publish (effects.py)

The state belongs to one actor, which applies events first when it buffers or has committed them. Nothing
here does I/O, reads a clock or draws a random number: time comes with the message.
"""
