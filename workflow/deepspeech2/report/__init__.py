"""From the rows' results to records, table, figures, report page and comparisons."""

FORMAT = 1  # of record.json
