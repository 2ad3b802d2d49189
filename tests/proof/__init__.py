"""The proof: real processes on real services, one fault after the other while a load runs, and what came of every notification."""
