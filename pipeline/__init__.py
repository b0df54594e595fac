"""FER2013 from the competition's files to scored submissions (see dvc.yaml and `python -m pipeline --help`)."""
