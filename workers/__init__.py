"""The processes that hold the links to the clusters, and the tasks that use them."""
