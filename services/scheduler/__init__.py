"""The queue, the supervisor of runners, and the runner of one job with its phases."""
