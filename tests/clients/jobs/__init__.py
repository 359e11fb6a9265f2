"""The jobs of the queues that ``test_redis_libraries.py`` runs; their workers import these modules."""
