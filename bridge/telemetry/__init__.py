"""What the programs say of themselves: log lines, metrics, traces.

Owns the shape of each and where it goes. Must not import any other room, nor fail or block whoever
logs or counts. Start reading at `metrics.py`: every metric is in it.
"""
