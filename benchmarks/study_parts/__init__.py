"""Parts of the study of population size, mutation rate and generations."""
