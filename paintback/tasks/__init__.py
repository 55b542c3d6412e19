"""What Paintback does with pictures: painting back, enlarging, taking apart, and clips; all through one session."""
