"""The phone side: AudioSocket over TCP, and the 20 ms clock."""
