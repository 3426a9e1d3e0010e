"""Findings: what is wrong with a checkpoint folder, whoever wrote it, by what evidence, and what to do.

`finding` and `kinds` say what a finding is and which there are, `folder` opens a folder that may be broken, `modules`
and `claims` tell what is packed and what the config says of it. `documents`, `packing`, `readers`, `scales`,
`source` and `digests` hold the checks, `doctor` the job that runs them.
"""
