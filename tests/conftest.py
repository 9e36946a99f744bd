import os

# Before NumPy is imported: its threads would wait busily for each other on small blocks.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.load_profile("default")
