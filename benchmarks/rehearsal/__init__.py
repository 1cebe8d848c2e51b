"""A rehearsal of the published model: files of the published form with random weights.

`sizes` says how large, `random_networks` makes the networks, `published_files` writes every file
under its published name; the detectors of `looking_detectors` are stand-ins that see people of the
generated world, those of `scripted_detectors` always give one answer. Nothing here is ever the
published model: a folder of such files says so in its `own_weights.json`.
"""
