"""What people answer: the queue of inputs that a person labels."""
