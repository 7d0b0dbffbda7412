"""Labs: attacks and exercises that a teacher can hand out, one module each."""
