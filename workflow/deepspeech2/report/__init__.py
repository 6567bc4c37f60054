"""From the rows' results to records, table, figures, report page and comparisons."""

FORMAT = 2  # of record.json
