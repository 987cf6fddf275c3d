"""A worker: two processes that own partitions, deliver their entries and record what came of them.

Nothing here is for receivers; what they may use stands one folder up. Start reading at
`process/composition.py`, which puts the parts together. The parts, in the way of an entry:

- `partitions/`: which partitions are ours, what is known of each, whose turn it is in one
- `delivery/`: reading entries, calling the handler, and what its outcome means
- `recording/`: outcomes written to Redis: acknowledged, parked, dead, trimmed
- `process/`: parent and child, start and stop, finding and preparing the receiver
- `scripts/`: the Lua of all of them
"""
