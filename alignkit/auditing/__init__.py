"""A second opinion on the verdicts of a study: each claim asked in every defensible way, by code of its own.

Nothing here knows how a claim's panel asks (`study/panel.py`, `claims/panel.py`), nor how rates are chosen for it
(`records/tuning.py`): the tables of the records are read anew, so that a fault there does not repeat itself here.
"""
