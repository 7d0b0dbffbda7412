"""Reports: log lines and tables made from results and trace files only, so that they work on yesterday's run."""
