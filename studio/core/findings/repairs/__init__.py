"""Repairs: a copy of a folder in which what is certain is mended; the folder itself is never touched.

`draft` says what of a folder changes, `documents`, `exclusions`, `sections`, `tensors` and `requantizing` hold the
repairs, `table` says which kind of finding each mends, `copying` writes the folder, `repairing` is the job.
"""
