"""`make bench`: the product side by side with sbatch, scp and bare TCP, on private servers."""
