"""What operators ask and do, as functions and plain dataclasses over one namespace.

Owns what is known of backlogs, devices, dead letters, spools and checks. Must not parse a command
line nor print: no click, no rich, no HTML. Start reading at `namespace.py`, then `status.py`.
"""
