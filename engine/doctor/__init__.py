"""``edge-video doctor``: ``*_facts`` measure, ``*_checks`` judge the facts, ``examine`` runs both."""
