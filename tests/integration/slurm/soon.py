"""Slurm, with less patience after an unclear submission than a real site needs."""

from cluster_client.schedulers.slurm import Slurm


class Soon(Slurm):
    retry_floor_s = 1.0

    def retry_at(self, intent_at, limit_s):
        return intent_at + limit_s + self.retry_floor_s
