"""Asynchronous clients of the decision service, made for short deadlines: late is an answer, and no call hides a retry."""
