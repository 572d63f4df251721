"""Where the real data of tests lies; tests skip, saying so, where it is absent."""

import os
from pathlib import Path

DATA = Path(os.environ.get("MEMGPT_DATA", "../shared/data"))
