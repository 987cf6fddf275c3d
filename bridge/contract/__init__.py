"""The stream contract, version 1: every key, field and rule that both halves agree on.

Pure: no I/O, no clock, no settings, and nothing else of the project. Who writes a producer or a
consumer in another language needs this room and no other. Start reading at `keys.py`, then
`entries.py`.
"""
