"""A small made-up log of a shop as raw files, to try `diet-ray ingest` on before you have your own: Parquet, one file per day.

python examples/make_events.py events
"""

import sys
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
    sys.exit("usage: python examples/make_events.py FOLDER")  # before the second that the imports take

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAYS, ROWS, USERS, ITEMS = 4, 3000, 500, 200
MOMENT = pa.timestamp("ms", "UTC")
TAGS = np.array(["new", "sale", "bio", "local", "gift"])

folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
folder.mkdir(parents=True)
taste, appeal = rng.normal(size=(USERS, 4)), rng.normal(size=(ITEMS, 4))
popular, price = rng.normal(size=ITEMS), rng.lognormal(3, 1, ITEMS).round(2)
tags = [",".join(rng.choice(TAGS, rng.integers(0, 3), replace=False)) for _ in range(ITEMS)]
monday = datetime(2024, 3, 4, tzinfo=ZoneInfo("Europe/Berlin"))

for midnight in (monday + timedelta(days=day) for day in range(DAYS)):
    user = rng.integers(0, USERS, ROWS)
    item = (ITEMS * rng.random(ROWS) ** 2).astype(int)  # a long tail
    logit = (taste[user] * appeal[item]).sum(1) + popular[item] - 0.3 * np.log(price[item]) - 0.5
    columns = {
        "event_time": pa.array(int(midnight.timestamp() * 1000) + np.sort(rng.integers(0, 86_400_000, ROWS)), MOMENT),
        "user_id": [f"u{number}" for number in user],
        "item_id": [f"i{number}" for number in item],
        "price": price[item],
        "tags": [tags[number] for number in item],
        "is_click": (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int),
    }
    pq.write_table(pa.table(columns), folder / f"{midnight:%Y-%m-%d}.parquet")
print(f"{folder}: {DAYS} days of {ROWS} rows")
