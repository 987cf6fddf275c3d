"""What goes on after the page that began it is closed: counting, and acting on many.

Owns how many there are at once, their progress, and that they end with the console. Must not know
what is done: that is a batch of `bridge.operations`. Start reading at `job.py`.
"""
