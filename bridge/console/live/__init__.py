"""What moves on a page that stays open: one look each second, for however many watch.

Owns when operations are asked for a snapshot, the last ten minutes of them, and the stream that
browsers follow. Must not judge what is seen. Start reading at `hub.py`.
"""
