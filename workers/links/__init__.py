"""What holds the connections; knows neither Django nor Celery."""
