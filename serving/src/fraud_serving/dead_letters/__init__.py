"""Dead letters for the person on duty: list them, look into one, send the originals to the stream again.

Only what came from ``transactions`` is sent again. ``accepted`` holds decisions that clients acted on; ``labels`` and
``features`` are written by the platform alone, so a bad record there is a fault to mend, not one to repeat.

What was sent is remembered in the commit of the group ``<identity>.redrive``: the offset is where the memory starts, the
metadata holds the topic's id and the letters redriven from there on, as a packed bit set. Letters older than the broker keeps such a commit
are sent by name only. A crash between sending and the commit sends a batch twice; the platform decides an id once.
"""
