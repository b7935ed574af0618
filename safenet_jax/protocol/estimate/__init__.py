"""What an inference will cost, before anything runs."""
