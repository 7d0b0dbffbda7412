"""Reports for people, made from results and trace files alone."""
