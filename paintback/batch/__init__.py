"""Many pictures: the job file, and running it here or on Ray."""
