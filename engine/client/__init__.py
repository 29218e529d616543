"""The read side: stored frames, their times, and the events that announce them."""
