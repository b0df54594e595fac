"""What the cells give: the ensemble, the submissions, their scores and the report."""
