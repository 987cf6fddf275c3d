"""Receivers to start from: copy one, rename the class, change the body."""
