"""Logs as other engines write them, ingested and compared value by value with what was written: `python -m benchmarks.formats`.

`engines/` holds one script per engine, which knows nothing of diet_ray; `environments.py` the versions, `cases.py` what is asked of each
type, `verdicts.py` the comparison, `exports.py` the way back (an export read by the engines), `page.py` the tables of docs/your-log.md.
"""
